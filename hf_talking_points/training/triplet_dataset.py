"""What the supervised trainers iterate over: photos with points and descriptions that are drawn anew for each row."""

from __future__ import annotations

import functools
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import nn

from ..data.photos import Photo
from ..data.sources import read_dataset
from ..data.triplets import (
    View,
    count_texts,
    has_text_about_frame,
    make_view,
    make_views,
    sample_triplets,
    told_in,
)
from ..models.coordinates import canvas_box, pixels_to_canvas
from ..words.looks import spot_colors, spot_patterns
from ..words.writer import STYLES
from .arguments import PointSamplingArguments
from .feature_cache import FeatureCache

if TYPE_CHECKING:
    from transformers import ProcessorMixin

logger = logging.getLogger(__name__)

Rows: TypeAlias = "Dataset | IterableDataset"
TRIPLET_COLUMNS = (
    "feature_maps",
    "pixel_values",
    "points",
    "scale",
    "size",
    "descriptions",
    "sources",
    "colors",
    "patterns",
    "pixels",
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
        told_share (`float`): chance of a view with texts in those of the styles that the rule-based writer does not
            know, instead of any view.
        seed (`int`): with the number of a row it decides what the row holds, so that a resumed run goes on with the
            same data.
        with_looks (`bool`): whether rows tell the colors and patterns of the points, and their pixels.
    """

    processor: ProcessorMixin
    points_per_image: int = 8
    style_weights: dict[str, float] | None = None
    surroundings: float = 0.0
    told_share: float = 0.0
    seed: int = 0
    with_looks: bool = False

    def row(
        self,
        view: View,
        number: int,
        cache: FeatureCache | None = None,
        index: int = 0,
    ) -> dict[str, Any]:
        """The row of a view, which comes at an index of the cache; see [`triplet_dataset`] for its columns."""
        rng = np.random.default_rng([self.seed, number])
        image = functools.cache(view.image)  # for texts and model
        pixels, descriptions, sources = sample_triplets(
            view,
            self.points_per_image,
            rng,
            self.style_weights,
            self.surroundings,
            image,
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
        if self.with_looks:
            photo = np.asarray(image())
            row["colors"] = torch.from_numpy(spot_colors(photo, pixels))
            row["patterns"] = spot_patterns(photo, pixels)
            row["pixels"] = pixels
        if cache is None:
            row["pixel_values"] = self.processor.pixel_values([image()])[0]
        else:
            row["feature_maps"] = cache[index]
        return row

    def dataset(
        self, views: list[View], cache: FeatureCache | None = None, draws: int = 1
    ) -> Dataset:
        """See [`triplet_dataset`]."""
        if not views:
            raise ValueError(
                "there is no view to draw points from: no photo has a usable point"
            )

        told: list[int] = []
        if self.told_share:
            told = self.told_views(views)
        numbers = list(range(draws * len(views)))
        drawn = DrawnRows(self, views, cache, told)
        return Dataset.from_dict({"row": numbers}).with_transform(drawn)

    def told_views(self, views: list[View]) -> list[int]:
        """Where those views stand that have texts in styles which the rule-based writer does not know.

        Raises ValueError where there is none.
        """
        styles = [style for style in self.style_weights or {} if style not in STYLES]
        told = []
        for index, view in enumerate(views):
            points = view.points()
            if any(told_in(points, style) for style in styles):
                told.append(index)
        if not told:
            raise ValueError(
                f"told_share={self.told_share} is of photos with texts in a style of the dataset's own, but no point "
                f"has a text in one of {styles}"
            )
        return told


@dataclass
class DrawnRows:
    """Makes numbers of rows into rows. An object and no function, so that it reaches workers that are spawned."""

    sampler: TripletSampler
    views: list[View]
    cache: FeatureCache | None
    told: list[int]

    def __reduce__(self) -> tuple[Callable[[bytes], DrawnRows], tuple[bytes]]:
        # `datasets` pickles a transform in Python to hash it, which takes minutes for the annotation of many photos
        fields = (self.sampler, self.views, self.cache, self.told)
        return drawn_rows, (pickle.dumps(fields),)

    def view_of(self, number: int) -> int:
        """Where the view of a row stands."""
        rng = np.random.default_rng([self.sampler.seed, number, 0])
        if self.told and rng.random() < self.sampler.told_share:
            return self.told[rng.integers(len(self.told))]
        return number % len(self.views)

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list]:
        rows = []
        for number in batch["row"]:
            index = self.view_of(number)
            rows.append(self.sampler.row(self.views[index], number, self.cache, index))
        return {column: [row[column] for row in rows] for column in rows[0]}


def drawn_rows(pickled: bytes) -> DrawnRows:
    """[`DrawnRows`] of its pickled fields."""
    return DrawnRows(*pickle.loads(pickled))


def triplet_dataset(
    views: list[View],
    processor: ProcessorMixin,
    cache: FeatureCache | None = None,
    points_per_image: int = 8,
    style_weights: dict[str, float] | None = None,
    surroundings: float = 0.0,
    told_share: float = 0.0,
    draws: int = 1,
    seed: int = 0,
) -> Dataset:
    """A dataset with `draws` rows for each view, each with points and descriptions of its own.

    Columns: `feature_maps` (with `cache`) or `pixel_values`; `points`, float tensor of shape `(points_per_image, 2)`
    on the canvas; `scale`, parts of the image's width and height for one canvas unit; `size`, (width, height) in
    pixels; `descriptions`; `sources`, (object, part point) or None for surroundings. A [`TripletSampler`] of one's own
    can add `colors`, CIELAB of shape `(points_per_image, 3)`, `patterns`, a name each, and `pixels`, (x,
    y) of each point.

    Args:
        views (`list[View]`): of [`make_views`].
        cache ([`FeatureCache`], *optional*): of these views.
        draws (`int`): rows of each view.
        processor, points_per_image, style_weights, surroundings, told_share, seed: see [`TripletSampler`].

    Raises ValueError where there is no view.
    """
    sampler = TripletSampler(
        processor, points_per_image, style_weights, surroundings, told_share, seed
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
    drawn = StreamedRows(rows, sampler, views_per_photo, draws, view_seed)
    return IterableDataset.from_generator(drawn)


@dataclass
class StreamedRows:
    """The rows of [`triplet_stream`]. An object and no function, so that it reaches workers that are spawned."""

    rows: IterableDataset
    sampler: TripletSampler
    views_per_photo: int
    draws: int
    view_seed: int

    def __call__(self) -> Iterator[dict[str, Any]]:
        number = 0
        described = 0  # points with a text that does not hold on crops
        for draw in range(self.draws):
            for crop_number in range(self.views_per_photo):
                if draw == 0 and crop_number == 1 and described:
                    self.tell_replaced_texts(described)
                for view in self.views(crop_number):
                    if draw == 0 and crop_number == 0:
                        described += sum(
                            has_text_about_frame(point) for _, point in view.points()
                        )
                    yield self.sampler.row(view, number)
                    number += 1
            if number == 0:
                raise ValueError(
                    "train_dataset gives no photo with a point that can be described"
                )

    def views(self, crop_number: int) -> Iterator[View]:
        """One pass over the photos: their views with a number, 0 for whole photos."""
        return streamed_views(read_dataset(self.rows), crop_number, self.view_seed)

    def tell_replaced_texts(self, described: int) -> None:
        """Warns where a dataset has texts that are not those of its crops."""
        logger.warning(
            "views_per_photo=%d: texts of train_dataset on %d points speak of the whole photo. On crops that do not "
            "show nearly all of it the rule-based writer describes them.",
            self.views_per_photo,
            described,
        )


def streamed_views(
    photos: Iterable[Photo], crop_number: int, seed: int
) -> Iterator[View]:
    """The views of [`make_views`] with one number, 0 for whole photos, of photos that are read one after the other."""
    for index, photo in enumerate(photos):
        view = make_view(photo, crop_number, index, seed)
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
        with_looks (`bool`): whether rows tell the looks of the points.

    Raises ValueError where features of a backbone that is trained would be cached.
    """

    def __init__(
        self,
        sampling: PointSamplingArguments,
        processor: ProcessorMixin,
        backbone: nn.Module,
        with_looks: bool = False,
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
        self.with_looks = with_looks

    def sampler(
        self,
        style_weights: dict[str, float] | None,
        surroundings: float = 0.0,
        told_share: float = 0.0,
    ) -> TripletSampler:
        return TripletSampler(
            self.processor,
            self.sampling.points_per_image,
            style_weights,
            surroundings,
            told_share,
            with_looks=self.with_looks,
        )

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
        options = self.sampling
        sampler = self.sampler(
            options.weighted_styles, options.surroundings, options.told_share
        )
        return sampler.dataset(views, self.cache(views), options.draws)

    def stream(self, rows: IterableDataset) -> IterableDataset:
        """What to train on, of photos that are read one after the other."""
        self.check_stream("train_dataset")
        options = self.sampling
        if options.told_share:
            raise ValueError(
                "train_dataset is streamed, and told_share needs all photos at once: load it without streaming=True, "
                "or leave told_share out"
            )
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
            styles (`list[str]`, *optional*): to evaluate one by one; without them those of training. One that the
                rule-based writer does not know is evaluated on the points that have a text in it.

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
            sampler = self.sampler({style: 1.0})
            told = views_told_in(views, style)
            if style in STYLES or not told:
                by_style[style] = sampler.dataset(views, cache)
            else:
                by_style[style] = sampler.dataset(told, self.cache(told))
        return EvaluationData(views, by_style)


def views_told_in(views: list[View], style: str) -> list[View]:
    """Those views that have points with a text in a style, with these points alone."""
    told = [replace(view, styles=(style,)) for view in views]
    return [view for view in told if view.points()]


def training_views(
    rows: Dataset | None, sampling: PointSamplingArguments
) -> list[View]:
    """Photos and crops of them, to train on.

    Raises ValueError where there is none.
    """
    photos = photos_of(rows, "train_dataset")
    views = make_views(photos, sampling.views_per_photo, sampling.view_seed)
    checked_views(views, "train_dataset")
    tell_replaced_texts(views, sampling)
    return views


def tell_replaced_texts(views: list[View], sampling: PointSamplingArguments) -> None:
    """Warns where a dataset has texts, but not all that are trained on are its own."""
    count = count_texts(views, sampling.weighted_styles)
    if not count.described or count.own == count.total:
        return
    logger.warning(
        "views_per_photo=%d, styles=%s: of %d texts to train on %d are those of train_dataset. The rule-based writer "
        "describes the others: %d of points on crops, where a text about the whole photo does not hold, and %d that "
        "train_dataset does not have in that style.",
        sampling.views_per_photo,
        sampling.styles,
        count.total,
        count.own,
        count.on_crops,
        count.without_text,
    )
    if sampling.views_per_photo > 1 and count.only_on_photos:
        logger.warning(
            "views_per_photo=%d: %d points come on none of the smaller crops, because without object or part nothing "
            "but their own text describes them, and it speaks of the whole photo.",
            sampling.views_per_photo,
            count.only_on_photos,
        )


def checked_views(views: list[View], name: str) -> list[View]:
    """Raises ValueError where a dataset has no view."""
    if not views:
        raise ValueError(f"{name} has no photo with a point that can be described")
    return views
