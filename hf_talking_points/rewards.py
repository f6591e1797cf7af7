"""The localizer as a reward: a description is good when the pixel is found with it (section 3.3 of the paper)."""

import hashlib
import math
import os

import torch
from PIL import Image
from transformers import AutoModelForKeypointDetection, AutoProcessor

from .metrics import distinct_n, normalized_distances, pck
from .models.processing_talking_points import to_rgb

REFUSED_DISTANCE = math.sqrt(2)  # from one corner of an image to the opposite one
SHAPES = {
    "mse": lambda distances, tau: -(distances**2) / 2,  # the mean over x and y
    "exp": lambda distances, tau: torch.exp(-distances / tau),
    "pck": lambda distances, tau: (distances < tau).double(),
    "log": lambda distances, tau: -torch.log1p(distances / tau),
}


def distinct_images(images):
    """Images, many of them alike, as (list of PIL RGB images that differ, index into it of each image given)."""
    seen, distinct, index = {}, [], []
    for image in images:
        key = image if isinstance(image, (str, os.PathLike)) else None
        if isinstance(image, Image.Image):
            key = (
                image.size,
                image.mode,
                image.getexif().get(0x0112),
                hashlib.sha1(image.tobytes()).digest(),
            )
        if key is None or key not in seen:
            distinct.append(to_rgb(image))
        if key is None:
            index.append(len(distinct) - 1)
        else:
            index.append(seen.setdefault(key, len(distinct) - 1))
    return distinct, index


class LocalizerReward:
    """Reward function of [`PointGRPOTrainer`]: how close to the true point a frozen localizer comes with a description.

    Distances d are those of the metrics: x divided by the image's width, y by its height. A description that the localizer's processor
    refuses (empty, longer than the context, with special tokens) counts as d = sqrt(2).

    Args:
        localizer: [`PointLocalizerForKeypointDetection`], or path or Hub id of one, or a list of them: their rewards are averaged. They are
            put into eval mode and frozen.
        processor: the localizer's processor, a list for a list; not needed for paths and Hub ids.
        shape (`str`): "mse", -d^2 / 2 (the paper's mean squared error); "exp", exp(-d / tau); "pck", 1 where d < tau, else 0; "log",
            -log(1 + d / tau).
        tau (`float`): distance in parts of the image's sides, positive.
        reward_scale (`float`): factor of the reward. GRPO divides by the standard deviation of a group + 1e-4, to which the -d^2 / 2 of a
            good localizer comes down.
        batch_size (`int`): images of one forward pass.
        share_encodings (`bool`): encodes each image once, else once for each description.
        name (`str`): under which the trainer logs it.

    Raises ValueError for an unknown shape, a tau that is not positive, and numbers of localizers and processors that differ.
    """

    def __init__(
        self,
        localizer,
        processor=None,
        shape="mse",
        tau=0.1,
        reward_scale=1.0,
        batch_size=8,
        share_encodings=True,
        name="localizer",
    ):
        if shape not in SHAPES:
            raise ValueError(f"shape must be one of {tuple(SHAPES)}, got {shape!r}")
        if not tau > 0:
            raise ValueError(f"tau must be positive, got {tau!r}")
        localizers = list(localizer) if isinstance(localizer, (list, tuple)) else [localizer]
        processors = (
            list(processor)
            if isinstance(processor, (list, tuple))
            else [processor] * len(localizers)
        )
        if not localizers or len(processors) != len(localizers):
            raise ValueError(f"{len(localizers)} localizers but {len(processors)} processors")
        self.localizers, self.processors = [], []
        for index, (model, model_processor) in enumerate(zip(localizers, processors)):
            if isinstance(model, (str, os.PathLike)):
                model_processor = model_processor or AutoProcessor.from_pretrained(model)
                model = AutoModelForKeypointDetection.from_pretrained(model)
            if model_processor is None:
                raise ValueError(f"localizer {index} is a loaded model: pass its processor too")
            self.localizers.append(model.eval().requires_grad_(False))
            self.processors.append(model_processor)
        self.shape, self.tau, self.reward_scale = shape, tau, reward_scale
        self.batch_size, self.share_encodings = batch_size, share_encodings
        self.__name__ = name

    def to(self, device):
        """Moves the localizers."""
        for localizer in self.localizers:
            localizer.to(device)
        return self

    def locate(self, images, texts):
        """Where each localizer finds each text.

        Args:
            images (list): the image of each text, of any kind that [`to_rgb`] takes.
            texts (`list[str]`)
        Returns:
            (a list for each localizer with (x, y) in pixels for each text, None where its processor refuses the text; the list of
            (width, height) for each text).
        """
        if self.share_encodings:
            images, index = distinct_images(images)
        else:
            images, index = [to_rgb(image) for image in images], list(range(len(images)))
        found = [
            self._locate(*pair, images, index, texts)
            for pair in zip(self.localizers, self.processors)
        ]
        return found, [images[i].size for i in index]

    @torch.no_grad()
    def _locate(self, localizer, processor, images, index, texts):
        found, rows = [None] * len(texts), [[] for _ in images]
        for row, (image, text) in enumerate(zip(index, texts)):
            if processor.accepts(text):
                rows[image].append(row)
        named = [(image, own) for image, own in zip(images, rows) if own]
        for start in range(0, len(named), self.batch_size):
            chunk = named[start : start + self.batch_size]
            inputs = processor(
                images=[image for image, _ in chunk],
                text=[[texts[row] for row in own] for _, own in chunk],
            )
            outputs = localizer(**inputs.to(localizer.device))
            sizes = [(image.height, image.width) for image, own in chunk for _ in own]
            results = processor.post_process_keypoint_detection(outputs, sizes)
            for row, result in zip((row for _, own in chunk for row in own), results):
                found[row] = result["point"]
        return found

    def __call__(self, completions, image, point, log_metric=None, log_extra=None, **kwargs):
        """
        Args:
            completions (list): descriptions, as texts or as conversations of one message.
            image (list): the image of each completion.
            point (list of (x, y)): the true pixel of each completion.
            log_metric, log_extra (callables, *optional*): TRL's.
        Returns:
            `list[float]`: the rewards.
        """
        texts = [
            completion if isinstance(completion, str) else completion[-1]["content"]
            for completion in completions
        ]
        found, sizes = self.locate(image, texts)
        refused = torch.tensor([[place is None for place in own] for own in found])
        places = [
            [true if place is None else place for place, true in zip(own, point)] for own in found
        ]
        distances = torch.stack(
            [torch.from_numpy(normalized_distances(own, point, sizes)) for own in places]
        )
        distances[refused] = REFUSED_DISTANCE
        rewards = self.reward_scale * SHAPES[self.shape](distances, self.tau).mean(0)
        if log_metric is not None:
            values = {
                "distance": float(distances.mean()),
                "pck@0.1": pck(distances, 0.1),
                "pck@0.05": pck(distances, 0.05),
                "refused": float(refused.double().mean()),
                "words": sum(len(text.split()) for text in texts) / len(texts),
                "distinct_2": distinct_n(texts),
            }
            for key, value in values.items():
                log_metric(f"{self.__name__}/{key}", value)
        if log_extra is not None:
            log_extra("point", [[round(float(v), 1) for v in true] for true in point])
            for number, own in enumerate(found):
                name = self.__name__ if len(found) == 1 else f"{self.__name__}_{number}"
                log_extra(
                    f"{name}_found", [place and [round(v, 1) for v in place] for place in own]
                )
        return rewards.tolist()
