"""Both pipelines: what goes in, what comes out, and repos that load without the package."""

import copy
import io
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForKeypointDetection,
    GenerationConfig,
    TextIteratorStreamer,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

import hf_talking_points  # noqa: F401  registers the pipelines
from hf_talking_points.models.pipelines import Rows, split_by_counts

POINTS = [(10, 20), (60.5, 30), (95, 1)]
TEXTS = ["red green", "the cat", "a point on the front wheel of the car"]


def without_words(tokenizer):
    """Ids of the tokens that are no letters, which a random model would write most of the time."""
    ids = range(len(tokenizer))
    words = [tokenizer.decode([index]).strip() for index in ids]
    return [
        index
        for index in ids
        if not (words[index].isascii() and words[index].isalpha())
    ]


@pytest.fixture(scope="module")
def describe(make_descriptor):
    """A descriptor that writes letters."""
    model, processor = make_descriptor(seed=1)
    model.generation_config.suppress_tokens = without_words(processor.tokenizer)
    return pipeline(
        "point-description", model=model, processor=processor, max_new_tokens=8
    )


@pytest.fixture(scope="module")
def locate(make_localizer):
    model, processor = make_localizer(head="heatmap")
    return pipeline("point-localization", model=model, processor=processor)


def texts_of(answers):
    return [answer["description"] for answer in answers]


def assert_same_points(found, expected):
    assert texts_of(found) == texts_of(expected)
    points = [answer["point"] for answer in found]
    expected_points = [answer["point"] for answer in expected]
    np.testing.assert_allclose(points, expected_points, atol=1e-3)


def test_parts_of_given_lengths():
    assert split_by_counts("abcdef", [1, 0, 3, 2]) == ["a", "", "bcd", "ef"]


def test_description_of_points(describe, random_image):
    rows = describe(random_image(), points=POINTS)
    assert [row["point"] for row in rows] == POINTS
    for row in rows:
        assert set(row) == {"point", "description"}
        assert isinstance(row["description"], str)


def test_a_single_point_needs_no_list(describe, random_image):
    image = random_image()
    rows = describe(image, points=POINTS)
    for point in (POINTS[1], torch.tensor(POINTS[1]), np.array(POINTS[1])):
        assert describe(image, points=point) == [rows[1]]


def test_normalized_points_are_described_alike(describe, random_image):
    image = random_image()
    normalized = [(x / image.width, y / image.height) for x, y in POINTS]
    rows = describe(image, points=normalized, normalized=True)
    assert texts_of(rows) == texts_of(describe(image, points=POINTS))


def test_descriptions_of_several_images(describe, random_image):
    requests = []
    for seed in range(5):
        requests.append({"image": random_image(seed), "points": POINTS[: 1 + seed % 3]})
    rows = describe(requests, batch_size=3)
    assert rows == [
        describe(request["image"], points=request["points"]) for request in requests
    ]


def test_one_vision_call_for_all_points(describe, random_image):
    images_of_calls = []

    def count_images(module, args, output):
        images_of_calls.append(len(args[0]))

    hook = describe.model.model.backbone.register_forward_hook(count_images)
    describe(random_image(), points=POINTS)
    hook.remove()
    assert images_of_calls == [1]


def test_a_style_is_asked_for_in_the_prompt(describe, random_image, monkeypatch):
    image = random_image()
    rich = describe(image, points=POINTS)
    assert describe(image, points=POINTS, style="rich") == rich
    prompts = []
    tokenize = describe.processor.tokenize
    monkeypatch.setattr(
        describe.processor,
        "tokenize",
        lambda texts, **options: prompts.extend(texts) or tokenize(texts, **options),
    )
    describe(image, points=POINTS, style="short")
    assert prompts == [describe.processor.render(style="short")] * len(POINTS)
    with pytest.raises(ValueError, match="'loud' cannot be asked for"):
        describe(image, points=POINTS, style="loud")


def test_generation_options_pass_through(describe, random_image):
    [row] = describe(random_image(), points=POINTS[:1], max_new_tokens=1)
    assert len(describe.processor.tokenizer(row["description"])["input_ids"]) <= 1


FEW = 6  # new tokens


def in_the_call(describe, request, options):
    return describe([request], max_new_tokens=FEW, **options)[0]


def in_generate_kwargs(describe, request, options):
    return describe([request], generate_kwargs={"max_new_tokens": FEW, **options})[0]


def in_a_config(describe, request, options):
    config = GenerationConfig(max_new_tokens=FEW, **options)
    return describe([request], generation_config=config)[0]


def beside_a_config(describe, request, options):
    config = GenerationConfig(max_new_tokens=FEW)
    return describe([request], generation_config=config, **options)[0]


def at_construction(describe, request, options):
    made = type(describe)(
        model=describe.model,
        processor=describe.processor,
        max_new_tokens=FEW,
        **options,
    )
    return made([request])[0]


def in_a_config_at_construction(describe, request, options):
    config = GenerationConfig(max_new_tokens=FEW, **options)
    made = type(describe)(
        model=describe.model, processor=describe.processor, generation_config=config
    )
    return made([request])[0]


def by_the_checkpoint(describe, request, options):
    before = copy.deepcopy(describe.model.generation_config)
    describe.model.generation_config.update(max_new_tokens=FEW, **options)
    try:
        made = type(describe)(model=describe.model, processor=describe.processor)
        return made([request])[0]
    finally:
        describe.model.generation_config = before


def in_batches(describe, request, options):
    image, points = request["image"], request["points"]
    requests = [
        {"image": image, "points": [points[0]]},
        {"image": image, "points": points[1:]},
    ]
    answers = describe(requests, batch_size=2, max_new_tokens=FEW, **options)
    return answers[0] + answers[1]


WAYS = [
    in_the_call,
    in_generate_kwargs,
    in_a_config,
    beside_a_config,
    at_construction,
    in_a_config_at_construction,
    by_the_checkpoint,
    in_batches,
]
# options that change what `generate` returns, but not the texts
RETURNED = [
    {"return_dict_in_generate": True},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    {
        "return_dict_in_generate": True,
        "output_attentions": True,
        "output_hidden_states": True,
    },
]


@pytest.mark.parametrize("options", RETURNED, ids=lambda options: "+".join(options))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:Passing `generation_config` together:")
def test_what_generate_returns_does_not_change_the_answers(
    describe, random_image, way, options
):
    request = {"image": random_image(), "points": POINTS}
    expected = in_the_call(describe, request, {})
    assert way(describe, request, options) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "more", [{}, {"return_dict_in_generate": True}], ids=["", "dict"]
)
def test_a_stop_string_ends_the_answer(describe, random_image, way, more):
    request = {"image": random_image(), "points": POINTS}
    by_length = []  # the answers of one token, of two, ...
    for count in range(1, FEW + 1):
        by_length.append(texts_of(describe([request], max_new_tokens=count)[0]))
    stop = by_length[2][1][-2:]
    until_stop = []
    for beginnings in zip(*by_length):
        stopped = [text for text in beginnings if stop in text]
        until_stop.append(stopped[0] if stopped else beginnings[-1])
    assert len(until_stop[1]) < len(by_length[-1][1])
    assert (
        texts_of(way(describe, request, {"stop_strings": [stop], **more})) == until_stop
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "more", [{}, {"return_dict_in_generate": True}], ids=["", "dict"]
)
def test_several_sequences_are_consecutive_answers_to_their_point(
    describe, random_image, way, more
):
    request = {"image": random_image(), "points": POINTS}
    options = {"num_beams": 3, "num_return_sequences": 3}
    answers = way(describe, request, {**options, **more})
    assert [answer["point"] for answer in answers] == [
        point for point in POINTS for _ in range(3)
    ]
    # as when each point is described alone
    alone = []
    for point in POINTS:
        request = {"image": random_image(), "points": [point]}
        alone += in_the_call(describe, request, options)
    assert texts_of(answers) == texts_of(alone)
    best = in_the_call(
        describe, {"image": random_image(), "points": POINTS}, {"num_beams": 3}
    )
    assert answers[::3] == best
    for index in range(len(POINTS)):
        assert len(set(texts_of(answers[3 * index : 3 * index + 3]))) > 1


def test_samples_are_answers_too(describe, random_image):
    request = {"image": random_image(), "points": POINTS}
    options = {"do_sample": True, "top_k": 1, "num_return_sequences": 2}
    answers = in_the_call(describe, request, options)
    expected = in_the_call(describe, request, {})
    assert answers[::2] == answers[1::2] == expected


def test_a_streamer_gets_the_answer_as_it_grows(describe, random_image):
    streamer = TextIteratorStreamer(
        describe.processor.tokenizer, skip_prompt=True, skip_special_tokens=True
    )
    [row] = describe(random_image(), points=POINTS[0], streamer=streamer)
    assert "".join(streamer).strip() == row["description"]
    with pytest.raises(ValueError, match="batch size 1"):
        describe(random_image(), points=POINTS, streamer=streamer)


@pytest.mark.parametrize("at_construction", [False, True])
def test_an_assistant_model_changes_nothing(
    describe, random_image, make_language_model, at_construction
):
    assistant = make_language_model(tokenizer=describe.processor.tokenizer).eval()
    calls = []
    assistant.register_forward_hook(lambda *args: calls.append(1))
    pipe, options = describe, {"assistant_model": assistant}
    if at_construction:
        pipe = type(describe)(
            model=describe.model, processor=describe.processor, **options
        )
        options = {}
    request = {"image": random_image(), "points": POINTS[:1]}
    answers = pipe([request], max_new_tokens=FEW, **options)[0]
    assert answers == in_the_call(describe, request, {})
    assert calls


def test_a_generation_config_is_not_changed(describe, random_image):
    config = GenerationConfig(
        max_new_tokens=2, return_dict_in_generate=True, output_scores=True
    )
    before = config.to_dict()
    describe(random_image(), points=POINTS, generation_config=config)
    assert config.to_dict() == before


@pytest.fixture(scope="module")
def rows(random_image):
    """Two photos with points and texts, as a `datasets.Dataset`."""
    columns = {
        "image": [random_image(0), random_image(1)],
        "points": [[[20, 30], [10, 10]], [[5, 5]]],
        "text": [["red"], ["green", "the cat"]],
    }
    return Dataset.from_dict(columns).cast_column("image", datasets.Image())


def stored_undecoded(rows):
    return rows.cast_column("image", datasets.Image(decode=False))


KINDS_OF_ROWS = {
    "dataset": lambda rows: rows,
    "undecoded": stored_undecoded,
    "arrays": lambda rows: rows.with_format("numpy"),
    "tensors": lambda rows: rows.with_format("torch"),
    "stream": lambda rows: rows.to_iterable_dataset(),
    "undecoded stream": lambda rows: stored_undecoded(rows).to_iterable_dataset(),
    "tuple": tuple,
    "iterator": iter,
    "map": lambda rows: map(dict, rows),
    "dataset of torch": lambda rows: Rows(list(rows)),
}
COLUMNS_OF_IMAGES = {
    "column": lambda rows: rows["image"],
    "undecoded column": lambda rows: stored_undecoded(rows)["image"],
    "column of a stream": lambda rows: rows.to_iterable_dataset()["image"],
    "key": lambda rows: KeyDataset(rows, "image"),
    "rows without points": lambda rows: rows.select_columns("image"),
}


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("kind", KINDS_OF_ROWS)
def test_rows_of_every_kind_are_answered_one_after_the_other(
    describe, locate, rows, kind, batch_size
):
    given = KINDS_OF_ROWS[kind]
    described = describe(given(rows), batch_size=batch_size)
    assert list(described) == describe(list(rows), batch_size=batch_size)
    located = locate(given(rows), batch_size=batch_size)
    assert list(located) == locate(list(rows), batch_size=batch_size)


@pytest.mark.parametrize("kind", COLUMNS_OF_IMAGES)
def test_images_of_a_column_share_points_and_texts(describe, locate, rows, kind):
    images = list(rows["image"])
    given = COLUMNS_OF_IMAGES[kind]
    answers = describe(given(rows), points=POINTS[:1])
    assert list(answers) == describe(images, points=POINTS[:1])
    assert list(locate(given(rows), text="red")) == locate(images, text="red")


def test_datasets_are_read_as_their_answers_are_taken(describe, rows):
    read = []

    def note(row):
        read.append(row["points"])
        return row

    answers = describe(rows.to_iterable_dataset().map(note))
    assert read == []
    next(iter(answers))
    assert len(read) == 1
    assert len(describe(rows)) == len(rows)


@pytest.mark.parametrize(
    "given", [{"photo": 1}, b"pixels", io.BytesIO(b"pixels"), None]
)
def test_what_is_no_image_is_named(describe, given):
    with pytest.raises(TypeError, match=type(given).__name__):
        describe(given, points=POINTS)


def test_localization(locate, random_image):
    image = random_image()
    found = locate(image, text=TEXTS)
    assert texts_of(found) == TEXTS
    assert all(0 <= answer["confidence"] <= 1 for answer in found)
    assert_same_points(locate(image, text=TEXTS[0]), found[:1])
    assert_same_points(locate(image, text=TEXTS[::-1]), found[::-1])


def test_heatmaps_are_returned_where_they_are_wanted(locate, random_image):
    for answer in locate(random_image(), text=TEXTS, return_heatmaps=True):
        assert answer["heatmap"].ndim == 2
        assert abs(answer["heatmap"].sum() - 1) < 1e-4
    assert "heatmap" not in locate(random_image(), text=TEXTS)[0]


def test_localizations_in_several_images(locate, random_image):
    requests = [{"image": random_image(0), "text": TEXTS[0]}]
    for seed in range(1, 5):
        requests.append({"image": random_image(seed), "text": TEXTS[: 1 + seed % 3]})
    for found, request in zip(locate(requests, batch_size=3), requests):
        assert_same_points(found, locate(request["image"], text=request["text"]))


def test_mlp_head_has_no_confidence(make_localizer, random_image):
    model, processor = make_localizer(head="mlp")
    locate = pipeline("point-localization", model=model, processor=processor)
    [found] = locate(random_image(), text="red")
    assert found["confidence"] is None


@pytest.mark.parametrize(
    "points", [None, [], [(1, 999)], [(1, float("nan"))], [(1, 2, 3)]]
)
def test_bad_points_are_errors(describe, random_image, points):
    with pytest.raises(ValueError, match="point"):
        describe(random_image(), points=points)


@pytest.mark.parametrize("text", [None, [], "", ["red", " "], "red green " * 100])
def test_bad_texts_are_errors(locate, random_image, text):
    with pytest.raises(ValueError, match="text|description"):
        locate(random_image(), text=text)


def test_a_checkpoint_of_the_other_kind_is_an_error(describe, locate):
    for right, wrong in ((describe, locate), (locate, describe)):
        with pytest.raises(ValueError, match="checkpoint, but got a"):
            type(right)(model=wrong.model, processor=wrong.processor)


def test_a_checkpoint_folder_of_the_other_kind_is_an_error(describe, tmp_path):
    describe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="(?i)point.?descriptor"):
        pipeline("point-localization", model=str(tmp_path), trust_remote_code=True)


def pipeline_of(kind, model, processor):
    task = {"descriptor": "point-description", "localizer": "point-localization"}[kind]
    return pipeline(task, model=model, processor=processor)


@pytest.mark.parametrize(
    "kind, lost",
    [
        ("localizer", "point_head."),
        ("localizer", "model.language_model."),
        ("descriptor", "model.point_projector."),
    ],
)
def test_weights_that_a_checkpoint_lacks_are_named(request, tmp_path, kind, lost):
    model, processor = request.getfixturevalue(f"make_{kind}")()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    kept = {name: value for name, value in weights.items() if not name.startswith(lost)}
    assert len(kept) < len(weights)
    save_file(kept, file, {"format": "pt"})
    loaded = type(model).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"lacks .* weights .* such as {lost}"):
        pipeline_of(kind, loaded, processor)
    pipeline_of(kind, loaded.train().eval(), processor)  # they have been trained


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "kind, name",
    [
        ("localizer", "text_to_vision.0.weight"),
        ("descriptor", "model.language_model.norm.weight"),
    ],
)
def test_weights_that_are_not_finite_are_named(request, kind, name, value):
    model, processor = request.getfixturevalue(f"make_{kind}")()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    with pytest.raises(ValueError, match=f"weight {name} is not finite"):
        pipeline_of(kind, model, processor)


def test_what_is_not_finite_while_computing_is_no_answer(
    make_localizer, make_descriptor, random_image
):
    """As where half precision overflows."""
    model, processor = make_localizer()
    locate = pipeline_of("localizer", model, processor)
    model.text_to_vision.register_forward_hook(
        lambda module, args, output: output * float("nan")
    )
    with pytest.raises(ValueError, match="the point of text 0 is not finite"):
        locate(random_image(), text=TEXTS)
    model, processor = make_descriptor()
    describe = pipeline_of("descriptor", model, processor)
    model.model.point_projector.register_forward_hook(
        lambda module, args, output: output.index_fill(0, torch.tensor([1]), torch.inf)
    )
    with pytest.raises(ValueError, match="the encoding of point 1 is not finite"):
        describe(random_image(), points=POINTS)


def test_saved_repos_load_with_the_package(describe, locate, random_image, tmp_path):
    image = random_image()
    describe.save_pretrained(tmp_path / "descriptor")
    locate.save_pretrained(tmp_path / "localizer")
    loaded = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "descriptor"
    ).state_dict()
    for name, value in describe.model.state_dict().items():
        assert torch.equal(loaded[name], value), name
    again = pipeline(
        "point-description",
        model=str(tmp_path / "descriptor"),
        trust_remote_code=True,
        max_new_tokens=8,
    )
    assert again(image, points=POINTS) == describe(image, points=POINTS)
    localizer = AutoModelForKeypointDetection.from_pretrained(tmp_path / "localizer")
    assert isinstance(localizer, type(locate.model))


WITHOUT_PACKAGE = """
import sys
sys.modules["hf_talking_points"] = None  # importing it fails, as where it is not installed
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
folder, points, texts = sys.argv[1], {points!r}, {texts!r}
image = Image.open(folder + "/image.png")
describe = pipeline("point-description", model=folder + "/descriptor", trust_remote_code=True, max_new_tokens=8)
locate = pipeline("point-localization", model=folder + "/localizer", trust_remote_code=True)
assert AutoModel.from_pretrained(folder + "/descriptor", trust_remote_code=True).can_generate()
AutoModel.from_pretrained(folder + "/localizer", trust_remote_code=True)
assert AutoProcessor.from_pretrained(folder + "/descriptor", trust_remote_code=True).region_token == "<region>"
describe.save_pretrained(folder + "/again")
pipeline("point-description", model=folder + "/again", trust_remote_code=True)
print(repr((describe(image, points=points), locate(image, text=texts))))
"""


def test_saved_repos_load_without_the_package(describe, locate, random_image, tmp_path):
    image = random_image()
    image.save(tmp_path / "image.png")
    describe.save_pretrained(tmp_path / "descriptor")
    locate.save_pretrained(tmp_path / "localizer")
    program = WITHOUT_PACKAGE.format(points=POINTS, texts=TEXTS)
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    described, located = eval(result.stdout.strip().splitlines()[-1])
    assert described == describe(image, points=POINTS)
    assert located == locate(image, text=TEXTS)
