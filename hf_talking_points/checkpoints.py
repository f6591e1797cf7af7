"""Saved checkpoints: which one it is, whether others can load it, and how it is stored at half the size."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import broadcast_object_list
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils.hub import cached_file, extract_commit_hash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, TrainingArguments

logger = logging.getLogger(__name__)

STATE_FILE = (
    "trainer_state.json"  # the last file of a checkpoint that transformers writes
)
BYTES_AT_ONCE = 1 << 20  # bytes that are read at once


def model_version(model: str | Path) -> str:
    """What changes when a checkpoint does: the commit of a model of the Hub; of a folder, SHA-256 over its files.

    Args:
        model (`str` or `Path`): Hub id or folder, of which the files in subfolders do not count.
    Raises:
        OSError: no such model on the Hub, or one that may not be read.
    """
    folder = Path(model)
    if not folder.is_dir():
        # lies in the cache under its commit; configs of transformers 5.23 know theirs no more
        return extract_commit_hash(cached_file(str(model), "config.json"), None)
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file():
            _add_file(digest, file)
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, file: Path) -> None:
    """Adds name, size and content of a file to a digest."""
    digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    with open(file, "rb") as stream:
        while chunk := stream.read(BYTES_AT_ONCE):
            digest.update(chunk)


def last_checkpoint(args: TrainingArguments) -> str | None:
    """The last whole checkpoint, to resume a run from, the same on all processes; None where there is none.

    Only the main process looks: another one may come before the folder is made."""
    found: list[str | None] = [None]
    if args.process_index == 0:
        found = [last_whole_checkpoint(Path(args.output_dir))]
    return broadcast_object_list(found)[0]


def last_whole_checkpoint(output_dir: Path) -> str | None:
    """The last checkpoint of a run that was written to its end; a warning names later ones, where it was killed."""
    checkpoints: dict[int, Path] = {}
    for folder in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        number = folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
        if number.isdecimal():
            checkpoints[int(number)] = folder
    for step in sorted(checkpoints, reverse=True):
        if is_whole(checkpoints[step]):
            return str(checkpoints[step])
        logger.warning("%s was not written to its end: left out", checkpoints[step])
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether the file that transformers writes last is there, to its end."""
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def is_repo_id(name: str) -> bool:
    """Whether a repo of the Hub can have the name."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_base(base: str | None) -> None:
    """Raises ValueError where nobody else could load an adapter of a base model: one that was never saved, or that is
    no repo of the Hub but a folder of this or another machine."""
    if not base or Path(base).exists() or not is_repo_id(base):
        raise ValueError(
            f"the adapter's base model is {base!r}, which nobody can pull: push it first (`talking-points push`) "
            "and train on its Hub id, or merge the adapter into it (`merge_and_unload`)"
        )


def save_half_precision(
    model: PreTrainedModel, processor: ProcessorMixin, folder: str | Path
) -> None:
    """Saves weights in float16, half the size, with a config that makes every Auto class compute in float32 on a CPU.

    Args:
        model (`PreTrainedModel`): a descriptor or a localizer; its own weights are float16 afterwards.
        processor (`ProcessorMixin`): the model's.
        folder (`str` or `Path`): where both are saved.
    Raises:
        ValueError: a weight does not fit into float16. Nothing is saved then.
    """
    folder = Path(folder)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value.half()).all():
            raise ValueError(
                f"{name} has values that are not finite in float16: save this model in full precision"
            )
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    for section in (config, config["vision_config"], config["text_config"]):
        section["dtype"] = "float32"
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
