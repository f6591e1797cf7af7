"""Trains a Point Localizer on named points with transformers' Trainer.

python examples/train_localizer.py --config examples/train_localizer.yaml --data_dir DATA/animalpose_voc_256 DATA/cars_256
"""

from dataclasses import dataclass, field

from peft import get_peft_model
from transformers import TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import TrlParser

from hf_talking_points.hub import save_half_precision
from hf_talking_points.models.modeling_point_localizer import PointLocalizerForKeypointDetection
from hf_talking_points.models.processing_talking_points import PointLocalizerProcessor
from hf_talking_points.training.arguments import DataArguments, ModelArguments
from hf_talking_points.training.supervised import (
    PointLocalizerTrainer,
    cache_views,
    triplet_dataset,
)


@dataclass
class LocalizerArguments(ModelArguments):
    head: str = field(default="heatmap", metadata={"help": "heatmap or mlp"})
    standardize_states: bool = field(
        default=False,
        metadata={"help": "batch norm on the states of <SEG>, for a pretrained language model"},
    )


def main():
    data, model_args, args = TrlParser(
        (DataArguments, LocalizerArguments, TrainingArguments)
    ).parse_args_and_config()
    set_seed(
        args.seed
    )  # fresh weights are made before the trainer, which sets it too late for them
    train, validation = data.views()
    fields = {"head": model_args.head, "standardize_states": model_args.standardize_states}
    model, processor = model_args.load(
        PointLocalizerForKeypointDetection,
        PointLocalizerProcessor,
        train,
        decoder_layers=0,
        **fields,
    )
    caches = [
        cache_views(data.feature_cache, model.model.backbone, processor, views)
        if data.feature_cache
        else None
        for views in (train, validation)
    ]
    if lora := model_args.lora_config(
        [
            "image_projector",
            "map_keys",
            "state_norm",
            "text_to_vision",
            "point_head",
            "heatmap_head",
        ]
    ):
        model = get_peft_model(model, lora)
    count = data.points_per_image
    trainer = PointLocalizerTrainer(
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=triplet_dataset(
            train, processor, caches[0], count, data.weighted_styles, data.surroundings, data.draws
        ),
        eval_dataset={
            style: triplet_dataset(validation, processor, caches[1], count, {style: 1.0}, seed=0)
            for style in ("full", "terse")
        },
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))
    if model_args.lora_rank and not model_args.model_name_or_path:
        trainer.model = (
            trainer.model.merge_and_unload()
        )  # an adapter alone would have no saved model to go with
    trainer.save_model()
    processor.save_pretrained(args.output_dir)
    if args.push_to_hub:
        trainer.push_to_hub()
    if model_args.half_precision_dir:
        save_half_precision(trainer.model, processor, model_args.half_precision_dir)


if __name__ == "__main__":
    main()
