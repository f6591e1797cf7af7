"""Trains a Point Descriptor by GRPO on labelled points, without texts: a frozen localizer scores its descriptions.

python examples/run_grpo.py --config examples/run_grpo.yaml --data_dir DATA/animalpose_voc_256

Points come from folders with an objects.jsonl, from built datasets (folder or Hub id), and from COCO keypoints such as AP-10K
(--coco_annotations FILE --coco_images FOLDER). Several GPUs: `accelerate launch --config_file examples/accelerate_ddp.yaml
examples/run_grpo.py ...`, or with examples/accelerate_zero2.yaml.
"""

from dataclasses import dataclass, field

from datasets import Dataset
from transformers import AutoProcessor, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from hf_talking_points import (
    MINI_DESCRIPTOR,
    MINI_LOCALIZER,
    LocalizerReward,
    PointGRPOConfig,
    PointGRPOTrainer,
    paper_lora_config,
)
from hf_talking_points.data.sources import read_coco_keypoints, read_photos


@dataclass
class Arguments:
    model_name_or_path: str = field(
        default=MINI_DESCRIPTOR, metadata={"help": "descriptor (path or Hub id)"}
    )
    localizers: list[str] = field(
        default_factory=lambda: [MINI_LOCALIZER],
        metadata={"help": "localizers (paths or Hub ids) whose rewards are averaged"},
    )
    data_dir: list[str] = field(
        default_factory=list,
        metadata={"help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"},
    )
    coco_annotations: str | None = field(
        default=None, metadata={"help": "JSON file of COCO keypoints"}
    )
    coco_images: str | None = field(
        default=None, metadata={"help": "folder that its file names are relative to"}
    )
    categories: list[str] | None = field(
        default=None, metadata={"help": "objects whose points are taken; all of them if not given"}
    )
    max_eval_points: int = field(
        default=96, metadata={"help": "validation points that evaluation describes"}
    )
    lora_rank: int = field(
        default=0, metadata={"help": "rank of LoRA on the language model; 0 trains it in full"}
    )
    reward_shape: str = field(default="mse", metadata={"help": "mse, exp, pck or log"})
    reward_tau: float = field(
        default=0.1,
        metadata={"help": "distance that exp, pck and log refer to, in parts of the image's sides"},
    )
    reward_scale: float = field(default=1.0, metadata={"help": "factor of the reward"})

    def photos(self):
        photos = [photo for source in self.data_dir for photo in read_photos(source)]
        if self.coco_annotations:
            photos += read_coco_keypoints(self.coco_annotations, self.coco_images)
        return photos


def point_dataset(photos, categories=None):
    """A `datasets.Dataset` with one row for each annotated point: image, point (pixels), part, object. Images are opened when used."""
    chosen = [
        (index, annotated.category, point)
        for index, photo in enumerate(photos)
        for annotated in photo.objects
        for point in annotated.points
        if categories is None or annotated.category in categories
    ]
    columns = {
        "image": [index for index, _, _ in chosen],
        "point": [[float(point.x), float(point.y)] for _, _, point in chosen],
        "part": [point.part for _, _, point in chosen],
        "object": [category for _, category, _ in chosen],
    }
    return Dataset.from_dict(columns).with_transform(
        lambda rows: (
            {**rows, "image": [photos[index].open() for index in rows["image"]]}
            if "image" in rows
            else rows
        )
    )


def main():
    args, training = TrlParser((Arguments, PointGRPOConfig)).parse_args_and_config()
    set_seed(
        training.seed
    )  # fresh weights are made before the trainer, which sets it too late for them
    photos = args.photos()
    train = point_dataset([photo for photo in photos if photo.split == "train"], args.categories)
    validation = point_dataset(
        [photo for photo in photos if photo.split == "validation"], args.categories
    )
    processor = AutoProcessor.from_pretrained(args.model_name_or_path)
    trainer = PointGRPOTrainer(
        model=args.model_name_or_path,
        reward_funcs=LocalizerReward(
            args.localizers,
            shape=args.reward_shape,
            tau=args.reward_tau,
            reward_scale=args.reward_scale,
        ),
        args=training,
        train_dataset=train,
        eval_dataset=validation.select(range(min(args.max_eval_points, len(validation)))),
        processing_class=processor,
        peft_config=paper_lora_config(args.lora_rank, 2 * args.lora_rank)
        if args.lora_rank
        else None,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(training.output_dir))
    trainer.save_model()
    processor.save_pretrained(training.output_dir)
    if training.push_to_hub:
        trainer.push_to_hub()


if __name__ == "__main__":
    main()
