"""Trains a Point Descriptor by GRPO on labeled points, without texts: a frozen localizer scores its descriptions.

    python examples/run_grpo.py --config examples/run_grpo.yaml --data_dir DATA/animalpose_voc_256

Points come from folders with an objects.jsonl, from built datasets (folder or Hub id), and from COCO keypoints such as
AP-10K (--coco_annotations FILE --coco_images FOLDER). Several GPUs: `accelerate launch --config_file
examples/accelerate_ddp.yaml examples/run_grpo.py ...`, or with examples/accelerate_zero2.yaml.
"""

from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import AutoModelForImageTextToText
from trl import TrlParser

from hf_talking_points import (
    MINI_DESCRIPTOR,
    MINI_LOCALIZER,
    FalseClaimReward,
    LocalizerReward,
    PointGRPOConfig,
    PointGRPOTrainer,
    SameWordingReward,
    paper_lora_config,
)
from hf_talking_points.checkpoints import last_checkpoint, save_half_precision
from hf_talking_points.data.rows import load_points, point_rows
from hf_talking_points.data.sources import read_coco_keypoints, read_dataset
from hf_talking_points.training.arguments import LoadingArguments
from hf_talking_points.training.point_rows import one_row_per_point


@dataclass
class ScriptArguments(LoadingArguments):
    model_name_or_path: str = field(
        default=MINI_DESCRIPTOR, metadata={"help": "descriptor (path or Hub id)"}
    )
    localizers: list[str] = field(
        default_factory=lambda: [MINI_LOCALIZER],
        metadata={"help": "localizers (paths or Hub ids) whose rewards are averaged"},
    )
    data_dir: list[str] = field(
        default_factory=list,
        metadata={
            "help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"
        },
    )
    coco_annotations: str | None = field(
        default=None, metadata={"help": "JSON file of COCO keypoints"}
    )
    coco_images: str | None = field(
        default=None, metadata={"help": "folder that its file names are relative to"}
    )
    categories: list[str] | None = field(
        default=None,
        metadata={"help": "objects whose points are taken; all of them if not given"},
    )
    nameless_share: float | None = field(
        default=None,
        metadata={
            "help": "share of training points without object or part, for which points with both are left out"
        },
    )
    max_eval_points: int = field(
        default=96, metadata={"help": "validation points that evaluation describes"}
    )
    lora_rank: int = field(
        default=0,
        metadata={"help": "rank of LoRA on the language model; 0 trains it in full"},
    )
    reward_shape: str = field(default="mse", metadata={"help": "mse, exp, pck or log"})
    reward_tau: float = field(
        default=0.1,
        metadata={
            "help": "distance that exp, pck and log refer to, in parts of the image's sides"
        },
    )
    reward_scale: float = field(default=1.0, metadata={"help": "factor of the reward"})
    false_claim_penalty: float = field(
        default=0.0,
        metadata={
            "help": "reward lost for each thing said that annotation or pixels contradict; 0 checks nothing"
        },
    )
    unknown_name_penalty: float = field(
        default=0.0,
        metadata={
            "help": "reward lost beside, for the name of an object or part that the annotation does not know"
        },
    )
    right_name_reward: float = field(
        default=0.0,
        metadata={
            "help": "reward won for the right name of the object, and again of the part"
        },
    )
    same_wording_penalty: float = field(
        default=0.0,
        metadata={
            "help": "reward lost by a description that is put like all others of its batch; 0 compares nothing"
        },
    )
    half_precision_dir: str | None = field(
        default=None,
        metadata={"help": "folder for a copy of the result with float16 weights"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("unknown_name_penalty", "right_name_reward"):
            if getattr(self, name) and not self.false_claim_penalty:
                raise ValueError(f"{name} needs a false_claim_penalty beside it")
        if self.nameless_share is not None and not 0 < self.nameless_share < 1:
            raise ValueError(
                f"nameless_share must be between 0 and 1, got {self.nameless_share}"
            )
        if self.lora_rank and self.half_precision_dir:
            raise ValueError(
                "lora_rank gives an adapter, half_precision_dir is for a whole model: choose one"
            )


def with_fewer_names(rows: Dataset, nameless_share: float) -> Dataset:
    """Rows of which a share is of points without object or part: of the others so many are left out at random.

    Raises ValueError where there is no such point, or their share is larger already.
    """
    has_name = []
    for category, part in zip(rows["object"], rows["part"]):
        has_name.append(category is not None and part is not None)
    (named,) = np.nonzero(has_name)
    nameless = len(rows) - len(named)
    if not nameless:
        raise ValueError(
            f"nameless_share={nameless_share}, but all {len(rows)} points have object and part: leave it out"
        )
    kept = round(nameless * (1 - nameless_share) / nameless_share)
    if kept > len(named):
        raise ValueError(
            f"nameless_share={nameless_share} is less than the share of {nameless} in {len(rows)} points that there is"
        )
    keeps = np.logical_not(has_name)
    keeps[np.random.default_rng(0).choice(named, kept, replace=False)] = True
    return rows.select(np.flatnonzero(keeps))


def load_dataset(args: ScriptArguments) -> DatasetDict:
    """The labeled points of all sources, split by photo."""
    sources = list(args.data_dir)
    if args.coco_annotations:
        photos = read_coco_keypoints(args.coco_annotations, args.coco_images)
        sources.append(point_rows(photos))
    dataset = load_points(sources)
    if args.categories:
        categories = set(args.categories)
        dataset = dataset.filter(
            lambda name: name in categories, input_columns="object"
        )
    for split, rows in dataset.items():
        dataset[split] = one_row_per_point(rows)
    if args.nameless_share is not None:
        dataset["train"] = with_fewer_names(dataset["train"], args.nameless_share)
    if "validation" in dataset:
        validation = dataset["validation"]
        dataset["validation"] = validation.take(
            min(args.max_eval_points, len(validation))
        )
    return dataset


def main():
    args, training_args = TrlParser(
        (ScriptArguments, PointGRPOConfig)
    ).parse_args_and_config()
    # what the configuration says itself goes before
    training_args.model_init_kwargs = {
        "revision": args.model_revision,
        **args.loading_options(),
        **(training_args.model_init_kwargs or {}),
    }
    dataset = load_dataset(args)
    rewards = [
        LocalizerReward(
            args.localizers,
            shape=args.reward_shape,
            tau=args.reward_tau,
            reward_scale=args.reward_scale,
        )
    ]
    if args.false_claim_penalty:
        photos = []
        for rows in dataset.values():
            photos.extend(read_dataset(rows))
        reward = FalseClaimReward(
            photos,
            penalty=args.false_claim_penalty,
            name_penalty=args.unknown_name_penalty,
            name_reward=args.right_name_reward,
        )
        rewards.append(reward)
    if args.same_wording_penalty:
        rewards.append(SameWordingReward(args.same_wording_penalty))
    peft_config = None
    if args.lora_rank:
        peft_config = paper_lora_config(r=args.lora_rank, lora_alpha=2 * args.lora_rank)

    trainer = PointGRPOTrainer(
        model=args.model_name_or_path,
        reward_funcs=rewards,
        args=training_args,
        train_dataset=dataset["train"],
        eval_dataset=dataset.get("validation"),
        peft_config=peft_config,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(training_args))

    trainer.save_model()
    if training_args.push_to_hub:
        trainer.push_to_hub()
    if args.half_precision_dir and trainer.is_world_process_zero():
        trained = AutoModelForImageTextToText.from_pretrained(training_args.output_dir)
        processor = trainer.processing_class
        save_half_precision(trained, processor, args.half_precision_dir)


if __name__ == "__main__":
    main()
