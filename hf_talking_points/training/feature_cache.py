"""Feature maps of a frozen backbone, computed once and read from disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from huggingface_hub.utils import WeakFileLock
from tqdm import tqdm
from transformers import PreTrainedModel

from ..files import whole_file

BATCHES_BETWEEN_NOTES = 20  # progress is noted on disk so often
# what a config says of how and from where the model was loaded
NOT_OF_THE_MODEL = ("dtype", "_name_or_path")


def backbone_fingerprint(backbone: PreTrainedModel) -> str:
    """SHA-1 of a backbone's weights and of its config, less what that says of how and from where it was loaded."""
    config = backbone.config.to_dict()
    for name in NOT_OF_THE_MODEL:
        config.pop(name, None)
    digest = hashlib.sha1(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    tensor = tensor.detach().cpu().contiguous()
    # only a tensor with a dimension can be viewed as bytes, which also NumPy's lack of bfloat16 asks for
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def new_map_file(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A memory-mapped file of zeros in half precision.

    Raises OSError naming the file where the disk has no room for it: a process that writes to a mapped page for which
    there is none would die of a signal."""
    mapped = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    if not hasattr(os, "posix_fallocate"):  # macOS and Windows
        return mapped
    with open(file, "rb+") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, os.path.getsize(file))
        except OSError as error:
            file.unlink()
            raise OSError(error.errno, error.strerror, str(file)) from error
    return mapped


class FeatureCache:
    """Half-precision feature maps of a list of canvases, in one memory-mapped file for each level.

    Computing is resumed where it stopped: `done.json` counts the canvases on disk.

    Args:
        folder (`str` or `Path`): where the files are; one subfolder for each combination of backbone and canvases.
        backbone (`PreTrainedModel`): a frozen transformers backbone.
        keys (`list[str]`): what identifies the canvases and how they are normalized; they decide the subfolder's name.
        count (`int`): number of canvases.
        canvas (function): index -> uint8 array of shape `(height, width, 3)`.
        normalize (function): list of such arrays -> pixel values `(n, 3, height, width)`.
        batch_size (`int`): canvases of one forward pass.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: PreTrainedModel,
        keys: Sequence[str],
        count: int,
        canvas: Callable[[int], np.ndarray],
        normalize: Callable[[list[np.ndarray]], torch.Tensor],
        batch_size: int = 32,
    ) -> None:
        identity = backbone_fingerprint(backbone) + json.dumps(list(keys))
        self.folder = Path(folder) / hashlib.sha1(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.progress = self.folder / "done.json"
        self.levels: list[np.ndarray] = []
        # the ranks of one run, or several runs, may want the same maps
        with WeakFileLock(self.folder / "lock"):
            self.compute(backbone, count, canvas, normalize, batch_size)

    def compute(
        self,
        backbone: PreTrainedModel,
        count: int,
        canvas: Callable[[int], np.ndarray],
        normalize: Callable[[list[np.ndarray]], torch.Tensor],
        batch_size: int,
    ) -> None:
        """Computes the maps that are not on disk yet."""
        done = json.loads(self.progress.read_text()) if self.progress.is_file() else 0
        if done:
            self.levels = self.mapped("r+")
        if done == count:
            return
        backbone.eval()
        with tqdm(total=count, initial=done, desc="Computing feature maps") as bar:
            for start in range(done, count, batch_size):
                stop = min(start + batch_size, count)
                pixel_values = normalize(
                    [canvas(index) for index in range(start, stop)]
                )
                with torch.inference_mode():
                    maps = backbone(pixel_values.to(backbone.device)).feature_maps
                self.write(maps, start, stop, count)
                bar.update(stop - start)
                if (
                    start // batch_size + 1
                ) % BATCHES_BETWEEN_NOTES == 0 or stop == count:
                    self.note(stop)

    def mapped(self, mode: Literal["r", "r+"]) -> list[np.ndarray]:
        """The files of all levels, memory-mapped."""
        files = sorted(self.folder.glob("level*.npy"))
        return [np.load(file, mmap_mode=mode) for file in files]

    def __getstate__(self) -> dict[str, Path]:
        """Of the maps only where they are: a mapped file would be pickled with all that is in it."""
        return {"folder": self.folder, "progress": self.progress}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__dict__.update(state)
        self.levels = self.mapped("r")

    def write(
        self, maps: Sequence[torch.Tensor], start: int, stop: int, count: int
    ) -> None:
        """Puts the maps of the canvases from `start` to `stop` into the files, which are made where there are none."""
        if not self.levels:
            for number, level in enumerate(maps):
                file = self.folder / f"level{number}.npy"
                self.levels.append(new_map_file(file, (count, *level.shape[1:])))
        for stored, level in zip(self.levels, maps):
            stored[start:stop] = level.half().cpu().numpy()

    def note(self, done: int) -> None:
        """Writes down that the first `done` canvases are on disk."""
        for stored in self.levels:
            stored.flush()
        with whole_file(self.progress) as file:
            file.write_text(json.dumps(done))

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        """The maps of a canvas, float32, one of shape `(channels, height, width)` for each level."""
        return [
            torch.from_numpy(stored[index].astype(np.float32)) for stored in self.levels
        ]
