"""Feature maps of a frozen backbone, computed once and read from disk."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from huggingface_hub.utils import WeakFileLock
from tqdm import tqdm


def backbone_fingerprint(backbone):
    """SHA-1 of a backbone's weights and config, but for what a config says of how and from where the model was loaded."""
    config = {
        name: value
        for name, value in backbone.config.to_dict().items()
        if name not in ("dtype", "_name_or_path")
    }
    digest = hashlib.sha1(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(
            value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if value.ndim
            else value.numpy().tobytes()
        )
    return digest.hexdigest()


class FeatureCache:
    """Half-precision feature maps of a list of canvases, in one memory-mapped file for each level.

    Computing is resumed where it stopped: `done` counts the canvases on disk.

    Args:
        folder: where the files are; one subfolder for each combination of backbone and canvases.
        backbone: a frozen transformers backbone.
        keys (`list[str]`): what identifies the canvases; they decide the subfolder's name.
        count (`int`): number of canvases.
        canvas: function index -> uint8 array of shape (height, width, 3).
        normalize: function from a list of such arrays to pixel values.
    """

    def __init__(self, folder, backbone, keys, count, canvas, normalize, batch_size=32):
        digest = hashlib.sha1(
            (backbone_fingerprint(backbone) + json.dumps(keys)).encode()
        ).hexdigest()[:16]
        self.folder = Path(folder) / digest
        self.folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(
            self.folder / "lock"
        ):  # the ranks of one run, or several runs, may want the same maps
            self.compute(backbone, count, canvas, normalize, batch_size)

    def compute(self, backbone, count, canvas, normalize, batch_size):
        progress = self.folder / "done.json"
        done = json.loads(progress.read_text()) if progress.is_file() else 0
        self.levels = (
            [np.load(f, mmap_mode="r+") for f in sorted(self.folder.glob("level*.npy"))]
            if done
            else None
        )
        backbone.eval()
        bar = tqdm(total=count, initial=done, desc="Computing feature maps", disable=done == count)
        for start in range(done, count, batch_size):
            stop = min(start + batch_size, count)
            pixel_values = normalize([canvas(i) for i in range(start, stop)])
            with torch.inference_mode():
                maps = backbone(pixel_values).feature_maps
            if self.levels is None:
                self.levels = [
                    np.lib.format.open_memmap(
                        self.folder / f"level{i}.npy", "w+", np.float16, (count, *m.shape[1:])
                    )
                    for i, m in enumerate(maps)
                ]
            for level, m in zip(self.levels, maps):
                level[start:stop] = m.half().numpy()
            bar.update(stop - start)
            if (start // batch_size) % 20 == 19 or stop == count:
                for level in self.levels:
                    level.flush()
                temporary = progress.with_suffix(".tmp")
                temporary.write_text(json.dumps(stop))
                temporary.replace(progress)
        bar.close()

    def __getitem__(self, index):
        return [torch.from_numpy(level[index].astype(np.float32)) for level in self.levels]
