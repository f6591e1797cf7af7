"""The localizer as a reward: a description is good when the pixel is found with it (section 3.3 of the paper)."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import (
    AutoModelForKeypointDetection,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from .data.photos import AnnotatedObject, PartPoint, Photo
from .localization import NO_POINT, locate_texts
from .metrics import distances_with_misses, distinct_n, pck
from .models.images import distinct_images, to_rgb
from .models.pipelines import PointLocalizationPipeline
from .words.claims import CONFIRMED, OPEN, Claim, check_claims, false_claims
from .words.facts import Scene
from .words.writer import skeleton

__all__ = [
    "SHAPES",
    "FalseClaimReward",
    "LocalizerReward",
    "SameWordingReward",
    "distinct_images",
]

SHAPES = ("mse", "exp", "pck", "log")
MOST_CLAIMS = 3  # false ones that are counted: a long text is not worse than nonsense


def shaped(distances: np.ndarray, shape: str, tau: float) -> np.ndarray:
    """Rewards of distances, an array of any shape; see [`LocalizerReward`] for the shapes of the reward."""
    if shape == "mse":
        return -(distances**2) / 2  # the mean over x and y
    if shape == "exp":
        return np.exp(-distances / tau)
    if shape == "pck":
        return (distances < tau).astype(np.float64)
    return -np.log1p(distances / tau)


class LocalizerReward:
    """Reward function of [`PointGRPOTrainer`]: how close to the true point a frozen localizer comes with a
    description.

    Distances d are those of the metrics: x divided by the image's width, y by its height. A description that the
        localizer cannot take
    (empty, longer than its context, with special tokens) counts as the farthest corner of the image.

    Args:
        localizer: [`PointLocalizerForKeypointDetection`], or path or Hub id of one, or a list of them: their rewards
            are averaged. They are put into eval mode and frozen.
        processor: the localizer's processor, a list for a list; not needed for paths and Hub ids.
        shape (`str`): "mse", -d^2 / 2 (the paper's mean squared error); "exp", exp(-d / tau); "pck", 1 where d < tau,
            else 0; "log", -log(1 + d / tau).
        tau (`float`): distance in parts of the image's sides, positive.
        reward_scale (`float`): factor of the reward. GRPO divides by the standard deviation of a group + 1e-4, to
            which the -d^2 / 2 of a good localizer comes down.
        batch_size (`int`): images of one forward pass.
        share_encodings (`bool`): encodes each image once, else once for each description.
        name (`str`): under which the trainer logs it.
    Attributes:
        localizers (list of [`PointLocalizationPipeline`])

    Raises ValueError for an unknown shape, a tau that is not positive, a scale that is not finite, numbers of
    localizers and processors that differ, and a localizer with weights that are missing or not finite.
    """

    def __init__(
        self,
        localizer: PreTrainedModel | str | os.PathLike | Sequence[Any],
        processor: ProcessorMixin | Sequence[ProcessorMixin] | None = None,
        shape: str = "mse",
        tau: float = 0.1,
        reward_scale: float = 1.0,
        batch_size: int = 8,
        share_encodings: bool = True,
        name: str = "localizer",
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape must be one of {SHAPES}, got {shape!r}")
        if not tau > 0:
            raise ValueError(f"tau must be positive, got {tau!r}")
        if not math.isfinite(reward_scale):
            raise ValueError(f"reward_scale must be finite, got {reward_scale!r}")
        models = (
            list(localizer) if isinstance(localizer, (list, tuple)) else [localizer]
        )
        if isinstance(processor, (list, tuple)):
            processors = list(processor)
        else:
            processors = [processor] * len(models)
        if not models or len(processors) != len(models):
            raise ValueError(
                f"{len(models)} localizers but {len(processors)} processors"
            )
        self.localizers: list[PointLocalizationPipeline] = []
        for index, (model, model_processor) in enumerate(zip(models, processors)):
            self.localizers.append(frozen_localizer(model, model_processor, index))
        self.shape = shape
        self.tau = tau
        self.reward_scale = reward_scale
        self.batch_size = batch_size
        self.share_encodings = share_encodings
        self.__name__ = name

    def to(self, device: str | torch.device) -> LocalizerReward:
        """Moves the localizers."""
        for localizer in self.localizers:
            localizer.model.to(device)
            localizer.device = localizer.model.device
        return self

    def locate(
        self, images: Sequence[Any], texts: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where each localizer finds each text.

        Args:
            images (list): the image of each text, of any kind that [`to_rgb`] takes.
            texts (`list[str]`)
        Returns:
            (points in pixels, array of shape `(number of localizers, n, 2)`, NaN where a localizer cannot take the
            text; image sizes, array of shape `(n, 2)`).
        """
        if self.share_encodings:
            distinct, index = distinct_images(images)
        else:
            distinct = [to_rgb(image) for image in images]
            index = list(range(len(images)))
        rows_of_image: list[list[int]] = [[] for _ in distinct]
        for row, image_index in enumerate(index):
            rows_of_image[image_index].append(row)
        requests = []
        for image, rows in zip(distinct, rows_of_image):
            requests.append((image, [texts[row] for row in rows]))
        found = np.full((len(self.localizers), len(texts), 2), NO_POINT)
        for number, localizer in enumerate(self.localizers):
            answers = locate_texts(localizer, requests, self.batch_size)
            for rows, answers_of_image in zip(rows_of_image, answers):
                found[number, rows] = [answer["point"] for answer in answers_of_image]
        sizes = np.array([distinct[image_index].size for image_index in index])
        return found, sizes

    def __call__(
        self,
        completions: Sequence[Any],
        image: Sequence[Any],
        point: Sequence[Sequence[float]],
        log_metric: Callable[[str, float], Any] | None = None,
        log_extra: Callable[[str, list], Any] | None = None,
        **kwargs: Any,
    ) -> list[float]:
        """
        Args:
            completions (list): descriptions, as texts or as conversations of one message.
            image (list): the image of each completion.
            point (list of (x, y)): the true pixel of each completion.
            log_metric, log_extra (callables, *optional*): TRL's.
        Returns:
            `list[float]`: the rewards.
        """
        texts = [completion_text(completion) for completion in completions]
        found, sizes = self.locate(image, texts)
        distances = np.stack(
            [distances_with_misses(points, point, sizes) for points in found]
        )
        if log_metric is not None:
            values = {
                "distance": float(distances.mean()),
                "pck@0.1": pck(distances, 0.1),
                "pck@0.05": pck(distances, 0.05),
                "refused": float(np.isnan(found).any(axis=2).mean()),
                "words": float(np.mean([len(text.split()) for text in texts])),
                # of all processes: unlike the others it is no mean over texts
                "distinct_2": distinct_n(gather_object(texts)),
            }
            for key, value in values.items():
                log_metric(f"{self.__name__}/{key}", value)
        if log_extra is not None:
            log_extra("point", [shown_point(place) for place in point])
            for number, points in enumerate(found):
                name = self.__name__ if len(found) == 1 else f"{self.__name__}_{number}"
                log_extra(f"{name}_found", [shown_point(place) for place in points])
        rewards = shaped(distances, self.shape, self.tau).mean(axis=0)
        return (self.reward_scale * rewards).tolist()


def frozen_localizer(
    model: PreTrainedModel | str | os.PathLike,
    processor: ProcessorMixin | None,
    index: int,
) -> PointLocalizationPipeline:
    """A localizer for inference alone, on the device where its model is.

    Args:
        model: the model, or path or Hub id of one.
        processor: the model's; that of the checkpoint if None.
        index (`int`): of the localizer, for the error.
    """
    if isinstance(model, (str, os.PathLike)):
        checkpoint = model
        model = AutoModelForKeypointDetection.from_pretrained(checkpoint)
        processor = processor or AutoProcessor.from_pretrained(checkpoint)
    if processor is None:
        raise ValueError(f"localizer {index} is a loaded model: pass its processor too")
    model.eval().requires_grad_(False)
    return PointLocalizationPipeline(
        model=model, processor=processor, device=model.device
    )


class FalseClaimReward:
    """Reward function of [`PointGRPOTrainer`]: what a description says of its point that annotation or pixels
    contradict, such as a wrong color, costs `penalty` each, three times at most.

    Whether a photo shows a thing that nobody annotated is left open by the check of claims, so a descriptor may learn
    to name one everywhere. `name_penalty` is the price of that. Prices alone may teach it to name nothing;
    `name_reward` pays for right names.

    Args:
        photos (iterable of [`Photo`]): the annotation of the images, which are told apart by the column `image_id`.
        penalty (`float`): of one false claim.
        name_penalty (`float`): of a description with the name of an object or part that the annotation does not know.
        name_reward (`float`): of a description that names the object which its point is on, and as much of one that
            names the part.
        name (`str`): under which the trainer logs it.

    Raises ValueError for a penalty that is not positive, and a `name_penalty` or `name_reward` that is negative.
    """

    def __init__(
        self,
        photos: Iterable[Photo],
        penalty: float = 0.3,
        name_penalty: float = 0.0,
        name_reward: float = 0.0,
        name: str = "false_claims",
    ) -> None:
        if not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty!r}")
        if not name_penalty >= 0:
            raise ValueError(f"name_penalty must be 0 or more, got {name_penalty!r}")
        if not name_reward >= 0:
            raise ValueError(f"name_reward must be 0 or more, got {name_reward!r}")
        self.photos = {photo.id: photo for photo in photos}
        self.penalty = penalty
        self.name_penalty = name_penalty
        self.name_reward = name_reward
        self.__name__ = name

    def __call__(
        self,
        completions: Sequence[Any],
        image: Sequence[Any],
        image_id: Sequence[str],
        point: Sequence[Sequence[float]],
        log_metric: Callable[[str, float], Any] | None = None,
        **kwargs: Any,
    ) -> list[float]:
        """
        Args:
            completions (list): descriptions, as texts or as conversations of one message.
            image (list): the image of each completion, of any kind that [`to_rgb`] takes.
            image_id (list of `str`)
            point (list of (x, y)): the pixel of each completion.
            log_metric (callable, *optional*): TRL's.
        Returns:
            `list[float]`: the rewards.

        Raises ValueError for an image that none of the photos is.
        """
        scenes: dict[str, Scene] = {}
        counts = []
        names_unknown = []
        names_right = []
        for completion, pixels, name, place in zip(completions, image, image_id, point):
            if name not in self.photos:
                raise ValueError(
                    f"image_id {name!r} is none of the {len(self.photos)} photos whose annotation was given"
                )
            if name not in scenes:
                scenes[name] = Scene(self.photos[name], np.asarray(to_rgb(pixels)))
            claims = check_claims(
                completion_text(completion),
                scenes[name],
                *annotation_of(self.photos[name], place),
            )
            counts.append(min(len(false_claims(claims)), MOST_CLAIMS))
            names_unknown.append(any(map(is_unknown_name, claims)))
            names_right.append(right_names(claims))
        if log_metric is not None:
            log_metric(f"{self.__name__}/count", float(np.mean(counts)))
            log_metric(f"{self.__name__}/unknown_names", float(np.mean(names_unknown)))
            log_metric(f"{self.__name__}/right_names", float(np.mean(names_right)))
        rewards = []
        for count, unknown, right in zip(counts, names_unknown, names_right):
            price = self.penalty * count + self.name_penalty * unknown
            rewards.append(self.name_reward * right - price)
        return rewards


class SameWordingReward:
    """Reward function of [`PointGRPOTrainer`]: a description costs `penalty` times the share of the other ones in the
    batch that are put like it.

    Nothing in the other rewards keeps a descriptor from putting everything the same way. Two descriptions are put
    alike where their [`skeleton`] is the same: what is left without names, colors and places.

    Args:
        penalty (`float`): of a description that is put like all others.
        name (`str`): under which the trainer logs it.

    Raises ValueError for a penalty that is not positive.
    """

    def __init__(self, penalty: float = 0.5, name: str = "same_wording") -> None:
        if not penalty > 0:
            raise ValueError(f"penalty must be positive, got {penalty!r}")
        self.penalty = penalty
        self.__name__ = name

    def __call__(
        self,
        completions: Sequence[Any],
        log_metric: Callable[[str, float], Any] | None = None,
        **kwargs: Any,
    ) -> list[float]:
        """
        Args:
            completions (list): descriptions, as texts or as conversations of one message.
            log_metric (callable, *optional*): TRL's.
        Returns:
            `list[float]`: the rewards, in [-`penalty`, 0].
        """
        skeletons = [
            skeleton(completion_text(completion)) for completion in completions
        ]
        counts = Counter(skeletons)
        if log_metric is not None:
            most_frequent = max(counts.values()) / len(skeletons)
            log_metric(f"{self.__name__}/most_frequent", most_frequent)
        others = max(len(skeletons) - 1, 1)
        return [-self.penalty * (counts[one] - 1) / others for one in skeletons]


def is_unknown_name(claim: Claim) -> bool:
    """Whether a claim names an object or part of which the annotation tells nothing."""
    return claim.kind in ("object", "part") and claim.verdict == OPEN


def right_names(claims: Iterable[Claim]) -> int:
    """How many of object and part of the point claims name rightly."""
    confirmed = {claim.kind for claim in claims if claim.verdict == CONFIRMED}
    return len(confirmed & {"object", "part"})


def annotation_of(
    photo: Photo, place: Sequence[float]
) -> tuple[AnnotatedObject | None, PartPoint]:
    """What is annotated at a pixel: (object, point), without object and part where nothing is."""
    x, y = place
    for annotated in photo.objects:
        for point in annotated.points:
            if (point.x, point.y) == (x, y):
                return annotated, point
    return None, PartPoint(None, x, y)


def completion_text(completion: Any) -> str:
    """The text of a completion, which may be a conversation of one message."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def shown_point(place: Sequence[float]) -> list[float] | None:
    """[x, y] to a tenth of a pixel for logs; None where there is no point."""
    if np.isnan(place).any():
        return None
    return [round(float(value), 1) for value in place]
