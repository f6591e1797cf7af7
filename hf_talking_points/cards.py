"""The card of a training run: how to use the checkpoint, the run's configuration and its last evaluation."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import is_peft_model
from huggingface_hub import ModelCard, ModelCardData
from transformers.modelcard import extract_hyperparameters_from_trainer

from ._version import __version__
from .models.remote_code import PIPELINE_TAGS, QUICK_STARTS

if TYPE_CHECKING:
    from transformers import Trainer

TEMPLATE = Path(__file__).parent / "templates" / "trained.md"
TASKS = {
    "point_descriptor": (
        "point-description",
        "A Point Descriptor: describes one pixel of a photo in words.",
    ),
    "point_localizer": (
        "point-localization",
        "A Point Localizer: finds the pixel of a photo that a text describes.",
    ),
}
SPEED_METRICS = (
    "runtime",
    "_per_second",
)  # endings of metrics that are about the machine
CITATION = """```bibtex
@misc{rusanovsky2025talkingpoints,
  title = {Talking Points: Describing and Localizing Pixels},
  author = {Matan Rusanovsky and Shimon Malnick and Shai Avidan},
  year = {2025},
  eprint = {2510.14583},
  archivePrefix = {arXiv}
}
```"""


def trained_card(
    trainer: Trainer,
    model_name: str | None = None,
    dataset_name: str | list[str] | None = None,
    tags: str | list[str] | None = None,
) -> ModelCard:
    """Card of what a trainer has trained so far.

    Args:
        trainer (`Trainer`): of a descriptor or a localizer, or of an adapter of one.
        model_name (`str`, *optional*): title; by default the name of the run's output folder.
        dataset_name (`str` or `list[str]`, *optional*): Hub id of what it was trained on.
        tags (`str` or `list[str]`, *optional*): for the Hub's search, besides the task's and the trainer's.
    """
    config = trainer.model.config
    _, summary = TASKS[config.model_type]
    repo_id = trainer.hub_model_id or trainer.args.output_dir
    versions = {
        package: version(package) for package in ("transformers", "trl", "torch")
    }
    return ModelCard.from_template(
        _metadata(trainer, dataset_name, tags),
        template_path=TEMPLATE,
        name=model_name or Path(trainer.args.output_dir).name,
        summary=summary,
        adapter=is_peft_model(trainer.model),
        dataset_name=dataset_name,
        quick_start=QUICK_STARTS[config.model_type].format(repo_id=repo_id),
        trainer=type(trainer).__name__,
        steps=trainer.state.global_step,
        arguments=extract_hyperparameters_from_trainer(trainer),
        results=_last_evaluation(trainer.state.log_history),
        versions={"hf_talking_points": __version__, **versions},
        citation=CITATION,
    )


def _metadata(
    trainer: Trainer, dataset_name: str | list[str] | None, tags: str | list[str] | None
) -> ModelCardData:
    """The head of the card."""
    config = trainer.model.config
    task, _ = TASKS[config.model_type]
    base = config._name_or_path
    given_tags = [tags] if isinstance(tags, str) else tags or []
    trainer_tags = getattr(trainer, "_tag_names", [])
    return ModelCardData(
        library_name="peft" if is_peft_model(trainer.model) else "transformers",
        pipeline_tag=PIPELINE_TAGS[config.model_type],
        base_model=None if Path(base).exists() else base,
        datasets=dataset_name,
        tags=sorted({"hf_talking_points", task, *trainer_tags, *given_tags}),
    )


def _last_evaluation(log_history: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each metric of evaluations."""
    results = {}
    for entry in log_history:
        for metric, value in entry.items():
            if metric.startswith("eval_") and not metric.endswith(SPEED_METRICS):
                results[metric] = value
    return results
