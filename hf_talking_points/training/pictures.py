"""Pictures of a run's completions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback

FOLDER = "_pictures"  # what begins with _ is not pushed: the photos may not be ours to publish


def save_picture(picture: Image.Image, output_dir: str | Path, step: int) -> None:
    """Writes a picture of one step into the folder of pictures in `output_dir`."""
    folder = Path(output_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    picture.save(folder / f"round_trip_{step:05d}.png")


def report_picture(
    picture: Image.Image, callbacks: Iterable[TrainerCallback], step: int
) -> None:
    """Shows a picture where the run is reported to: in TensorBoard, in Trackio."""
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback):
            pixels = np.asarray(picture)  # (height, width, 3)
            callback.tb_writer.add_image("round_trip", pixels, step, dataformats="HWC")
        elif isinstance(callback, TrackioCallback):
            import trackio  # installed where there is such a callback

            trackio.log({"round_trip": trackio.Image(picture)})
