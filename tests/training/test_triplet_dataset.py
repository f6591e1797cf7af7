"""Rows of photos -> points and descriptions that are drawn anew."""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from supervised_runs import draw_photos

from hf_talking_points.data.photos import Photo
from hf_talking_points.data.rows import load_points, point_features, point_rows
from hf_talking_points.data.sources import read_objects
from hf_talking_points.data.triplets import make_views
from hf_talking_points.models.coordinates import canvas_to_pixels, pixels_to_canvas
from hf_talking_points.training.arguments import PointSamplingArguments
from hf_talking_points.training.triplet_dataset import (
    TripletDatasets,
    TripletSampler,
    photos_of,
    training_views,
    triplet_dataset,
    triplet_stream,
)
from hf_talking_points.words.looks import PixelLooks, spot_colors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def rows(folder):
    return load_points(folder)["train"]


@pytest.fixture
def processor(make_localizer):
    return make_localizer()[1]


@pytest.fixture
def make_datasets(make_localizer):
    """Makes the datasets of a trainer with sampling options."""
    model, processor = make_localizer()
    model.freeze_backbone()

    def make(**options):
        return TripletDatasets(
            PointSamplingArguments(**options), processor, model.model.backbone
        )

    return make


def assert_same_row(row, expected):
    assert row["descriptions"] == expected["descriptions"]
    assert row["sources"] == expected["sources"]
    assert tuple(row["size"]) == tuple(expected["size"])
    for name in ("points", "scale", "pixel_values"):
        torch.testing.assert_close(row[name], expected[name], rtol=0, atol=0)


def test_points_lie_where_they_are_annotated(rows, processor):
    views = make_views(photos_of(rows, "rows"))
    row = triplet_dataset(views, processor, points_per_image=3)[0]
    places = [(point.x, point.y) for _, point in row["sources"]]
    expected = pixels_to_canvas(torch.tensor(places), 64, 48, processor.image_size)
    torch.testing.assert_close(row["points"], expected)
    assert len({point.part for _, point in row["sources"]}) == 3


def test_a_row_is_the_same_whenever_it_is_asked_for(rows, processor):
    views = make_views(photos_of(rows, "rows"), 2)
    options = {"points_per_image": 4, "surroundings": 0.3, "draws": 2}
    forward = triplet_dataset(views, processor, **options)
    backward = triplet_dataset(views, processor, **options)
    numbers = range(len(forward))
    later = {number: backward[number] for number in reversed(numbers)}
    for number in numbers:
        assert_same_row(forward[number], later[number])


def test_draws_differ_in_points_and_sentences(rows, processor):
    views = make_views(photos_of(rows, "rows"))
    dataset = triplet_dataset(views, processor, points_per_image=2, draws=3)
    assert len(dataset) == 3 * len(views)
    first_draws = [dataset[number * len(views)]["descriptions"] for number in range(3)]
    assert len({tuple(texts) for texts in first_draws}) > 1


def test_a_batch_holds_the_rows_that_are_asked_for_one_by_one(rows, processor):
    dataset = triplet_dataset(make_views(photos_of(rows, "rows")), processor)
    batch = dataset[2:5]
    for position, number in enumerate(range(2, 5)):
        row = {column: values[position] for column, values in batch.items()}
        assert_same_row(row, dataset[number])


def test_rows_tell_the_looks_of_their_points(rows, processor):
    views = make_views(photos_of(rows, "rows"), 2)
    dataset = TripletSampler(processor, 3, with_looks=True).dataset(views)
    side = processor.image_size
    for view, row in zip(views, dataset):
        points = canvas_to_pixels(row["points"], *view.photo.size, side)
        pixels = np.asarray(view.image())
        expected = spot_colors(pixels, points.tolist())
        np.testing.assert_allclose(row["colors"], expected, atol=1e-3)
        looks = PixelLooks(pixels)
        expected = [looks.at(*point).pattern for point in row["pixels"]]
        assert row["patterns"] == expected


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("views_per_photo", [1, 3])
def test_a_stream_gives_the_same_rows_in_the_same_order(
    rows, processor, views_per_photo, draws
):
    sampler = TripletSampler(
        processor, 3, {"full": 0.5, "terse": 0.5}, surroundings=0.3
    )
    views = make_views(photos_of(rows, "rows"), views_per_photo, seed=4)
    expected = sampler.dataset(views, draws=draws)
    stream = triplet_stream(
        rows.to_iterable_dataset(), sampler, views_per_photo, draws, 4
    )
    for _ in range(2):  # as often as it is read
        streamed = list(stream)
        assert len(streamed) == len(expected)
        for row, number in zip(streamed, range(len(expected))):
            assert_same_row(row, expected[number])


def test_by_default_the_datasets_own_descriptions_come(make_datasets):
    image = Image.fromarray(np.full((48, 64, 3), 90, np.uint8))
    texts = ["here", "over there", "at the brim"]
    features = point_features()
    described = {
        "image": [image] * 3,
        "image_id": ["a"] * 3,
        "point": [[10.0, 10.0], [10.0, 10.0], [50.0, 40.0]],
        "description": texts,
        "style": ["full", "human", None],
    }
    for column in features:
        described.setdefault(column, [None] * 3)
    rows = Dataset.from_dict(described, features=features)
    datasets = make_datasets(draws=20, points_per_image=2)
    triplets = datasets.train(training_views(rows, datasets.sampling))
    drawn = [text for row in triplets for text in row["descriptions"]]
    assert set(drawn) == set(texts)
    assert drawn.count("at the brim") == 20
    assert 4 <= drawn.count("here") <= 16
    assert drawn.count("here") + drawn.count("over there") == 20
    [evaluated] = datasets.evaluation(rows, "rows", None).datasets[None]
    assert set(evaluated["descriptions"]) <= set(texts)


def test_each_style_is_evaluated_alone_on_whole_photos(rows, make_datasets):
    datasets = make_datasets(
        views_per_photo=3, draws=5, surroundings=1.0, styles=["terse"]
    )
    data = datasets.evaluation(rows, "rows", ["full", "terse"])
    assert list(data.datasets) == ["full", "terse"]
    for triplets in data.datasets.values():
        assert len(triplets) == len(data.views) == len(photos_of(rows, "rows"))
        assert all(source is not None for row in triplets for source in row["sources"])
    longer = sum(len(text) for text in data.datasets["full"][0]["descriptions"])
    shorter = sum(len(text) for text in data.datasets["terse"][0]["descriptions"])
    assert longer > shorter


def test_a_style_of_the_source_is_evaluated_on_points_that_have_it(
    folder, make_datasets
):
    photos = read_objects(folder)
    [animal] = photos[0].objects
    told = replace(animal.points[0], texts=(("rich", "Its dark nose."),))
    animal = replace(animal, points=(told, *animal.points[1:]))
    photos[0] = replace(photos[0], objects=(animal,))
    datasets = make_datasets(points_per_image=2)
    data = datasets.evaluation(point_rows(photos), "rows", ["rich", "full"])
    [row] = data.datasets["rich"]
    assert row["descriptions"] == ["Its dark nose."] * 2
    assert len(data.datasets["full"]) == len(photos)


def test_evaluation_photos_can_be_limited(rows, make_datasets):
    for given in (rows, rows.to_iterable_dataset()):
        data = make_datasets(max_eval_photos=2).evaluation(given, "rows", None)
        assert len(data.views) == len(data.datasets[None]) == 2


def test_nothing_to_draw_from_is_said(rows, make_datasets, processor):
    empty = rows.select([])
    with pytest.raises(
        ValueError, match="train_dataset has no rows, so there is no photo"
    ):
        training_views(empty, PointSamplingArguments())
    with pytest.raises(ValueError, match="train_dataset is missing: there is no photo"):
        training_views(None, PointSamplingArguments())
    with pytest.raises(
        ValueError, match="eval_dataset has no rows, so there is no photo"
    ):
        make_datasets().evaluation(empty, "eval_dataset", None)
    with pytest.raises(ValueError, match="no view to draw points from"):
        triplet_dataset([], processor)
    stream = make_datasets().stream(rows.to_iterable_dataset().take(0))
    with pytest.raises(ValueError, match="train_dataset gives no photo"):
        next(iter(stream))
    with pytest.raises(
        TypeError, match="train_dataset must be a Dataset or IterableDataset"
    ):
        training_views([{"image": None}], PointSamplingArguments())


def test_a_stream_has_no_feature_cache(rows, make_datasets, tmp_path):
    datasets = make_datasets(feature_cache=str(tmp_path))
    with pytest.raises(
        ValueError, match="train_dataset is streamed, and feature_cache needs all"
    ):
        datasets.stream(rows.to_iterable_dataset())
    with pytest.raises(
        ValueError, match="validation is streamed, and feature_cache needs all"
    ):
        datasets.evaluation(rows.to_iterable_dataset(), "validation", None)


def test_a_trained_backbone_has_no_feature_cache(make_localizer, tmp_path):
    model, processor = make_localizer()
    sampling = PointSamplingArguments(feature_cache=str(tmp_path))
    with pytest.raises(ValueError, match="freeze_backbone"):
        TripletDatasets(sampling, processor, model.model.backbone)


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (48, 64)])
@pytest.mark.parametrize("cached", [False, True])
def test_a_photo_of_another_size_than_stated_is_named(
    make_datasets, tmp_path, size, cached
):
    folder = draw_photos(tmp_path / "photos")
    Image.new("RGB", size, "gray").save(folder / "3.png")
    photos = [photo for photo in read_objects(folder) if photo.id == "3.png"]
    datasets = make_datasets(feature_cache=str(tmp_path / "cache") if cached else None)
    with pytest.raises(ValueError, match=r"size of .*3\.png"):
        datasets.train(make_views(photos))[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views_per_photo": 0}, "views_per_photo must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"points_per_image": -1}, "points_per_image must be at least 1"),
        ({"max_eval_photos": 0}, "max_eval_photos must be at least 1"),
        ({"surroundings": 1.5}, "a chance from 0 to 1"),
        ({"styles": []}, "styles is empty"),
        ({"eval_styles": []}, "eval_styles is empty"),
        ({"style_weights": [1.0]}, "those of styles, which is not given"),
        (
            {"styles": ["full", "terse"], "style_weights": [1.0]},
            "2 styles but 1 style_weights",
        ),
        ({"styles": ["full"], "style_weights": [0.0]}, "nor all 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PointSamplingArguments(**options)


def described(photo, style="full"):
    """The photo with a text for each of its points."""
    objects = []
    for annotated in photo.objects:
        points = []
        for point in annotated.points:
            text = f"by hand: {point.part} of the dog in the picture"
            points.append(replace(point, texts=((style, text),)))
        objects.append(replace(annotated, points=tuple(points)))
    return replace(photo, objects=tuple(objects))


@pytest.mark.parametrize("style", ["full", "reworded"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_run_tells_whose_texts_it_trains_on(
    folder, make_datasets, caplog, style, is_streamed
):
    caplog.set_level(logging.WARNING)
    rows = point_rows([described(photo, style) for photo in read_objects(folder)[:3]])

    def texts(**options):
        caplog.clear()
        datasets = make_datasets(points_per_image=3, **options)
        if is_streamed:
            triplets = datasets.stream(rows.to_iterable_dataset())
        else:
            triplets = datasets.train(training_views(rows, datasets.sampling))
        return [text for row in triplets for text in row["descriptions"]]

    for styles in (None, [style]):
        own = texts(styles=styles)
        assert len(own) == 9 and all(text.startswith("by hand") for text in own)
        assert not caplog.text
        mixed = texts(styles=styles, views_per_photo=3)
        # of the photos and of those crops that show nearly all of them
        kept = sum(text.startswith("by hand") for text in mixed)
        assert 9 < kept < 27
        assert "views_per_photo=3" in caplog.text
        assert f" {9 if is_streamed else kept} " in caplog.text
    if not is_streamed:
        texts(styles=["terse"])
        assert "of 9 texts to train on 0 are those of train_dataset" in caplog.text


def test_without_texts_nothing_is_told(rows, caplog):
    training_views(rows, PointSamplingArguments(views_per_photo=3, styles=["full"]))
    assert not caplog.text


@pytest.mark.parametrize("views_per_photo", [1, 3])
def test_the_photo_of_a_row_is_opened_once(
    folder, processor, monkeypatch, views_per_photo
):
    opened = []
    plain = Photo.open
    monkeypatch.setattr(
        Photo, "open", lambda photo: opened.append(photo.id) or plain(photo)
    )
    views = make_views(read_objects(folder)[:3], views_per_photo)
    dataset = triplet_dataset(views, processor, points_per_image=2, surroundings=0.5)
    for number in range(len(dataset)):
        opened.clear()
        dataset[number]
        assert opened == [views[number].source.id]


def test_rows_can_be_sent_to_workers(folder, rows, make_datasets, tmp_path):
    datasets = make_datasets(feature_cache=str(tmp_path))
    triplets = datasets.train(make_views(read_objects(folder)[:2]))
    copied = pickle.loads(pickle.dumps(triplets))
    size = len(pickle.dumps(triplets.format["format_kwargs"]["transform"].cache))
    assert size < 1000  # where the maps are, and not the maps
    for number in range(2):
        for level, expected in zip(
            copied[number]["feature_maps"], triplets[number]["feature_maps"]
        ):
            torch.testing.assert_close(level, expected, rtol=0, atol=0)
    stream = make_datasets().stream(rows.to_iterable_dataset())
    first = next(iter(pickle.loads(pickle.dumps(stream))))
    assert_same_row(first, next(iter(stream)))


def test_told_photos_come_as_often_as_asked(folder, processor):
    first, *others = read_objects(folder)
    views = make_views([described(first, "rich"), *others])
    for told_share in (0.2, 0.8):
        dataset = triplet_dataset(
            views,
            processor,
            points_per_image=1,
            style_weights={"rich": 1.0, "terse": 1.0},
            told_share=told_share,
            draws=200 // len(views),
        )
        shown = [
            dataset.format["format_kwargs"]["transform"].view_of(number)
            for number in range(len(dataset))
        ]
        share = shown.count(0) / len(shown)
        expected = told_share + (1 - told_share) / len(views)
        assert abs(share - expected) < 0.12
        first = shown.index(0)
        assert dataset[first]["size"] == views[0].photo.size


def test_told_share_needs_told_photos(folder, make_datasets, rows):
    views = make_views(read_objects(folder)[:2])
    datasets = make_datasets(styles=["full", "rich"], told_share=0.5)
    with pytest.raises(ValueError, match="no point has a text in one of .'rich'."):
        datasets.train(views)
    with pytest.raises(ValueError, match="told_share needs all photos at once"):
        datasets.stream(rows.to_iterable_dataset())
    with pytest.raises(ValueError, match="styles, which is not given"):
        PointSamplingArguments(told_share=0.5)
    with pytest.raises(ValueError, match="told_share is a chance from 0 to 1"):
        PointSamplingArguments(told_share=1.5, styles=["rich"])
