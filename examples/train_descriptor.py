r"""Trains a Point Descriptor on named points with TRL's SFTTrainer.

python examples/train_descriptor.py --config examples/train_descriptor.yaml \
    --data_dir DATA/animalpose_voc_256 DATA/cars_256
"""

from pathlib import Path

from transformers import AutoModelForImageTextToText, set_seed
from trl import TrlParser

from hf_talking_points import PointDescriptorTrainer
from hf_talking_points.checkpoints import last_checkpoint, save_half_precision
from hf_talking_points.data.rows import load_points
from hf_talking_points.training.arguments import (
    DataArguments,
    PointDescriptorModelArguments,
    PointDescriptorTrainingArguments,
)
from hf_talking_points.training.compose import prepare_descriptor
from hf_talking_points.training.supervised import HEADS_FILE


def has_heads(checkpoint: str | None) -> bool:
    """Whether auxiliary heads lie beside a checkpoint, as pretrain_points.py leaves them."""
    return checkpoint is not None and (Path(checkpoint) / HEADS_FILE).is_file()


def main() -> None:
    parser = TrlParser(
        (DataArguments, PointDescriptorModelArguments, PointDescriptorTrainingArguments)
    )
    data_args, model_args, training_args = parser.parse_args_and_config()
    # fresh weights are made before the trainer, which sets the seed too late for them
    set_seed(training_args.seed)

    dataset = load_points(data_args.data_dir)
    model, processor = prepare_descriptor(
        model_args, dataset.get("train"), training_args
    )
    trainer = PointDescriptorTrainer(
        model=model,
        args=training_args,
        train_dataset=dataset.get("train"),
        eval_dataset=dataset.get("validation"),
        processing_class=processor,
        peft_config=model_args.lora_config(),
    )
    if training_args.heads_weight and has_heads(model_args.model_name_or_path):
        trainer.load_heads(model_args.model_name_or_path)
    trainer.train(resume_from_checkpoint=last_checkpoint(training_args))

    trainer.merge_fresh_adapter()
    trainer.save_model()
    if training_args.push_to_hub:
        trainer.push_to_hub()
    if model_args.half_precision_dir and trainer.is_world_process_zero():
        trained = AutoModelForImageTextToText.from_pretrained(training_args.output_dir)
        save_half_precision(trained, processor, model_args.half_precision_dir)


if __name__ == "__main__":
    main()
