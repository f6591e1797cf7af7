"""What the supervised trainers iterate over: photos with points and descriptions that are drawn anew for each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import nn

from ..data.crops import crop_photo, random_crop
from ..data.photos import Photo
from ..data.sources import read_dataset
from ..data.triplets import View, make_views, sample_triplets
from ..models.coordinates import canvas_box, pixels_to_canvas
from .arguments import PointSamplingArguments
from .feature_cache import FeatureCache

if TYPE_CHECKING:
    from transformers import ProcessorMixin

Rows: TypeAlias = "Dataset | IterableDataset"
TRIPLET_COLUMNS = (
    "feature_maps",
    "pixel_values",
    "points",
    "scale",
    "size",
    "descriptions",
    "sources",
)


@dataclass
class TripletSampler:
    """Draws points of a view, with descriptions, and brings both onto the processor's canvas.

    Args:
        processor (`ProcessorMixin`): of a descriptor or a localizer.
        points_per_image (`int`): points of one row.
        style_weights (`dict[str, float]`, *optional*): chance of each style; without it the points' own descriptions,
            each as often.
        surroundings (`float`): chance of a point beside all objects.
        seed (`int`): with the number of a row it decides what the row holds, so that a resumed run goes on with the
            same data.
    """

    processor: ProcessorMixin
    points_per_image: int = 8
    style_weights: dict[str, float] | None = None
    surroundings: float = 0.0
    seed: int = 0

    def row(
        self, view: View, number: int, feature_maps: list[torch.Tensor] | None = None
    ) -> dict[str, Any]:
        """The row of a view; see [`triplet_dataset`] for its columns."""
        rng = np.random.default_rng([self.seed, number])
        pixels, descriptions, sources = sample_triplets(
            view, self.points_per_image, rng, self.style_weights, self.surroundings
        )
        size = view.photo.size
        side = self.processor.image_size
        points = pixels_to_canvas(
            torch.tensor(pixels, dtype=torch.float64), *size, side
        )
        _, _, width, height = canvas_box(*size, side)
        row = {
            "points": points.float(),
            "scale": torch.tensor([side / width, side / height]),
            "size": size,
            "descriptions": descriptions,
            "sources": sources,
        }
        if feature_maps is None:
            row["pixel_values"] = self.processor.pixel_values([view.image()])[0]
        else:
            row["feature_maps"] = feature_maps
        return row

    def dataset(
        self, views: list[View], cache: FeatureCache | None = None, draws: int = 1
    ) -> Dataset:
        """See [`triplet_dataset`]."""
        if not views:
            raise ValueError(
                "there is no view to draw points from: no photo has a usable point"
            )

        def transform(batch: dict[str, list[int]]) -> dict[str, list]:
            rows = []
            for number in batch["row"]:
                index = number % len(views)
                feature_maps = None if cache is None else cache[index]
                rows.append(self.row(views[index], number, feature_maps))
            return {column: [row[column] for row in rows] for column in rows[0]}

        numbers = list(range(draws * len(views)))
        return Dataset.from_dict({"row": numbers}).with_transform(transform)


def triplet_dataset(
    views: list[View],
    processor: ProcessorMixin,
    cache: FeatureCache | None = None,
    points_per_image: int = 8,
    style_weights: dict[str, float] | None = None,
    surroundings: float = 0.0,
    draws: int = 1,
    seed: int = 0,
) -> Dataset:
    """A dataset with `draws` rows for each view, each with points and descriptions of its own.

    Columns: `feature_maps` (with `cache`) or `pixel_values`; `points`, float tensor of shape `(points_per_image, 2)`
    on the canvas; `scale`, parts of the image's width and height for one canvas unit; `size`, (width, height) in
    pixels; `descriptions`; `sources`, (object, part point) or None for surroundings.

    Args:
        views (`list[View]`): of [`make_views`].
        cache ([`FeatureCache`], *optional*): of these views.
        draws (`int`): rows of each view.
        processor, points_per_image, style_weights, surroundings, seed: see [`TripletSampler`].

    Raises ValueError where there is no view.
    """
    sampler = TripletSampler(
        processor, points_per_image, style_weights, surroundings, seed
    )
    return sampler.dataset(views, cache, draws)


def triplet_stream(
    rows: IterableDataset,
    sampler: TripletSampler,
    views_per_photo: int,
    draws: int,
    view_seed: int,
) -> IterableDataset:
    """[`triplet_dataset`] of photos that are read one after the other: the same rows in the same order.

    Args:
        rows (`IterableDataset`): in the row format, the rows of a photo one after the other. It is read anew for each
            draw and each crop.
        sampler ([`TripletSampler`])
        views_per_photo, draws, view_seed: see [`PointSamplingArguments`].
    """

    def generate() -> Iterator[dict[str, Any]]:
        number = 0
        for _ in range(draws):
            for crop_number in range(views_per_photo):
                for view in streamed_views(read_dataset(rows), crop_number, view_seed):
                    yield sampler.row(view, number)
                    number += 1
            if number == 0:
                raise ValueError(
                    "train_dataset gives no photo with a point that can be described"
                )

    return IterableDataset.from_generator(generate)


def streamed_views(
    photos: Iterable[Photo], crop_number: int, seed: int
) -> Iterator[View]:
    """The views of [`make_views`] with one number, 0 for whole photos, of photos that are read one after the other."""
    for index, photo in enumerate(photos):
        if crop_number == 0:
            view = View(photo, photo)
        else:
            rng = np.random.default_rng([seed, crop_number, index])
            crop, mirror = random_crop(photo, rng)
            view = View(crop_photo(photo, crop, mirror), photo, crop, mirror)
        if view.points():
            yield view


def cache_views(
    folder: str | Path,
    backbone: nn.Module,
    processor: ProcessorMixin,
    views: list[View],
) -> FeatureCache:
    """[`FeatureCache`] of the canvases of `views`, keyed by the photos' content and the processor's normalization."""
    image_processor = processor.image_processor
    normalization = [
        processor.image_size,
        list(image_processor.image_mean),
        list(image_processor.image_std),
    ]

    def normalize(canvases: list[np.ndarray]) -> torch.Tensor:
        return image_processor(canvases, return_tensors="pt")["pixel_values"]

    def canvas(index: int) -> np.ndarray:
        return np.asarray(processor.canvas(views[index].image()))

    keys = [view.key for view in views] + [str(normalization)]
    return FeatureCache(folder, backbone, keys, len(views), canvas, normalize)


def photos_of(rows: Rows | None, name: str, limit: int | None = None) -> list[Photo]:
    """The photos of a dataset in the row format.

    Args:
        rows (`Dataset` or `IterableDataset`)
        name (`str`): of the dataset, for messages.
        limit (`int`, *optional*): photos that are read at most.

    Raises TypeError for anything but a dataset, ValueError where there is none, or no photo in it.
    """
    if rows is None:
        raise ValueError(f"{name} is missing: there is no photo of that split")
    if not isinstance(rows, (Dataset, IterableDataset)):
        raise TypeError(
            f"{name} must be a Dataset or IterableDataset in the row format (docs/dataset_formats.md), "
            f"got {type(rows).__name__}"
        )
    photos = list(islice(read_dataset(rows), limit))
    if not photos:
        raise ValueError(f"{name} has no rows, so there is no photo with a point in it")
    return photos


@dataclass
class EvaluationData:
    """What a trainer evaluates on.

    Args:
        views (`list[View]`): the photos.
        datasets (`dict`): style -> [`triplet_dataset`] of them; the only key is None where styles are not told apart.
    """

    views: list[View]
    datasets: dict[str | None, Dataset]


class TripletDatasets:
    """Makes what a trainer iterates over of datasets in the row format.

    Args:
        sampling ([`PointSamplingArguments`])
        processor (`ProcessorMixin`)
        backbone (`nn.Module`): of the model, for the feature cache.

    Raises ValueError where features of a backbone that is trained would be cached.
    """

    def __init__(
        self,
        sampling: PointSamplingArguments,
        processor: ProcessorMixin,
        backbone: nn.Module,
    ) -> None:
        trained = any(parameter.requires_grad for parameter in backbone.parameters())
        if sampling.feature_cache is not None and trained:
            raise ValueError(
                "feature_cache keeps what a frozen backbone computes, but this backbone is trained: "
                "call model.freeze_backbone(), or leave feature_cache out"
            )
        self.sampling = sampling
        self.processor = processor
        self.backbone = backbone

    def sampler(
        self, style_weights: dict[str, float] | None, surroundings: float = 0.0
    ) -> TripletSampler:
        count = self.sampling.points_per_image
        return TripletSampler(self.processor, count, style_weights, surroundings)

    def cache(self, views: list[View]) -> FeatureCache | None:
        """The feature cache of views, where one is asked for."""
        folder = self.sampling.feature_cache
        return (
            cache_views(folder, self.backbone, self.processor, views)
            if folder
            else None
        )

    def check_stream(self, name: str) -> None:
        """Raises ValueError where features of a stream would be cached."""
        if self.sampling.feature_cache is not None:
            raise ValueError(
                f"{name} is streamed, and feature_cache needs all photos at once: "
                "load it without streaming=True, or leave feature_cache out"
            )

    def train(self, views: list[View]) -> Dataset:
        """What to train on: views as often as they are drawn."""
        sampler = self.sampler(
            self.sampling.weighted_styles, self.sampling.surroundings
        )
        return sampler.dataset(views, self.cache(views), self.sampling.draws)

    def stream(self, rows: IterableDataset) -> IterableDataset:
        """What to train on, of photos that are read one after the other."""
        self.check_stream("train_dataset")
        options = self.sampling
        sampler = self.sampler(options.weighted_styles, options.surroundings)
        return triplet_stream(
            rows, sampler, options.views_per_photo, options.draws, options.view_seed
        )

    def evaluation(
        self, rows: Rows, name: str, styles: list[str] | None
    ) -> EvaluationData:
        """What to evaluate on: whole photos, each once. Those of a stream are kept in memory.

        Args:
            rows: in the row format.
            name (`str`): of the dataset, for messages.
            styles (`list[str]`, *optional*): to evaluate one by one; without them those of training.

        Raises ValueError where there is no photo.
        """
        if isinstance(rows, IterableDataset):
            self.check_stream(name)
        views = make_views(photos_of(rows, name, self.sampling.max_eval_photos))
        cache = self.cache(checked_views(views, name))
        if styles is None:
            sampler = self.sampler(self.sampling.weighted_styles)
            return EvaluationData(views, {None: sampler.dataset(views, cache)})
        by_style: dict[str | None, Dataset] = {}
        for style in styles:
            by_style[style] = self.sampler({style: 1.0}).dataset(views, cache)
        return EvaluationData(views, by_style)


def training_views(
    rows: Dataset | None, sampling: PointSamplingArguments
) -> list[View]:
    """Photos and crops of them, to train on.

    Raises ValueError where there is none.
    """
    photos = photos_of(rows, "train_dataset")
    views = make_views(photos, sampling.views_per_photo, sampling.view_seed)
    return checked_views(views, "train_dataset")


def checked_views(views: list[View], name: str) -> list[View]:
    """Raises ValueError where a dataset has no view."""
    if not views:
        raise ValueError(f"{name} has no photo with a point that can be described")
    return views
