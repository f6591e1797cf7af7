"""Trains a Point Descriptor on named points with TRL's SFTTrainer.

python examples/train_descriptor.py --config examples/train_descriptor.yaml --data_dir DATA/animalpose_voc_256 DATA/cars_256
"""

from dataclasses import dataclass, field

from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, TrlParser

from hf_talking_points.hub import save_half_precision
from hf_talking_points.models.modeling_point_descriptor import (
    PointDescriptorForConditionalGeneration,
)
from hf_talking_points.models.processing_talking_points import PointDescriptorProcessor
from hf_talking_points.training.arguments import DataArguments, ModelArguments
from hf_talking_points.training.supervised import (
    PointDescriptorTrainer,
    PointHeads,
    cache_views,
    triplet_dataset,
)


@dataclass
class DescriptorArguments(ModelArguments):
    point_mask: str = field(default="gaussian", metadata={"help": "gaussian, predicted or none"})
    mask_sigma: float = field(
        default=0.05,
        metadata={"help": "standard deviation of the mask in units of the canvas side"},
    )
    heads_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the auxiliary loss on the point token; 0 leaves it out"},
    )
    localizer: str | None = field(
        default=None,
        metadata={"help": "localizer checkpoint: evaluation then reports the mPCK of descriptions"},
    )
    judged_photos: int = field(
        default=60, metadata={"help": "validation photos whose points are described and localized"}
    )


def main():
    data, model_args, args = TrlParser(
        (DataArguments, DescriptorArguments, SFTConfig)
    ).parse_args_and_config()
    set_seed(
        args.seed
    )  # fresh weights are made before the trainer, which sets it too late for them
    train, validation = data.views()
    model, processor = model_args.load(
        PointDescriptorForConditionalGeneration,
        PointDescriptorProcessor,
        train,
        decoder_layers=6,
        point_mask=model_args.point_mask,
        mask_sigma=model_args.mask_sigma,
    )
    caches = [
        cache_views(data.feature_cache, model.model.backbone, processor, views)
        if data.feature_cache
        else None
        for views in (train, validation)
    ]
    heads = None
    if model_args.heads_weight:
        named = [pair for view in train for pair in view.points()]
        heads = PointHeads(
            2 * model.config.vision_config.hidden_dim,
            {p.part for _, p in named},
            {o.category for o, _ in named},
        )
    count = data.points_per_image
    between = (
        None
        if model_args.freeze == "vision"
        else ["image_projector", "point_encoder", "point_projector"]
    )
    trainer = PointDescriptorTrainer(
        model=model,
        args=args,
        processing_class=processor,
        heads=heads,
        heads_weight=model_args.heads_weight,
        localizer=model_args.localizer,
        judged_views=validation[: model_args.judged_photos],
        train_dataset=triplet_dataset(
            train, processor, caches[0], count, data.weighted_styles, data.surroundings, data.draws
        ),
        eval_dataset=triplet_dataset(validation, processor, caches[1], count, seed=0),
        peft_config=model_args.lora_config(between),
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
