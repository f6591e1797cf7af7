"""Pipelines."""

import pytest
import torch
from datasets import Dataset, Image
from peer_models import DESCRIPTOR, POINTS, TEXTS, saved
from torch.utils.data import Dataset as TorchDataset
from transformers import (
    GenerationConfig,
    TextIteratorStreamer,
    TextStreamer,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

pytestmark = pytest.mark.slow
TASKS = {
    "description": (DESCRIPTOR, "point-description"),
    "localization": ("localizer, heatmap", "point-localization"),
}
both_pipelines = pytest.mark.parametrize("kind", TASKS)
DESCRIBING = {"max_new_tokens": 6, "min_new_tokens": 6}


@pytest.fixture(scope="module")
def checkpoints(make_pair, tmp_path_factory):
    """A folder for each kind of pipeline."""
    folders = {}
    for name, (kind, _) in TASKS.items():
        model, processor = make_pair(kind)
        folders[name] = saved(model, processor, tmp_path_factory.mktemp(name))
    return folders


@pytest.fixture
def make_pipeline(checkpoints):
    """Makes a pipeline of a kind; options are those of `pipeline`."""

    def make(kind, **options):
        return pipeline(TASKS[kind][1], model=checkpoints[kind], **options)

    return make


@pytest.fixture
def requests(random_image):
    """Makes requests for images of different sizes."""

    def make(kind):
        images = [random_image(0), random_image(1, 50, 90), random_image(2, 120, 40)]
        made = []
        for number, image in enumerate(images):
            asked = POINTS if kind == "description" else TEXTS
            name = "points" if kind == "description" else "text"
            made.append({"image": image, name: asked[: number + 1]})
        return made

    return make


def options_of(kind):
    return DESCRIBING if kind == "description" else {}


def plain(answers):
    """Answers with their numbers rounded, which batching may change by a hair."""
    if isinstance(answers, dict):
        return {name: plain(value) for name, value in answers.items()}
    if isinstance(answers, (list, tuple)):
        return [plain(value) for value in answers]
    return round(answers, 2) if isinstance(answers, float) else answers


@both_pipelines
@pytest.mark.parametrize("batch_size", [2, 3])
def test_batching(kind, batch_size, make_pipeline, requests):
    """`batch_size={batch_size}` gives what one at a time gives."""
    ask = make_pipeline(kind)
    options = options_of(kind)
    expected = [ask(request, **options) for request in requests(kind)]
    found = ask(requests(kind), batch_size=batch_size, **options)
    assert plain(found) == plain(expected)


class Requests(TorchDataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@both_pipelines
@pytest.mark.parametrize(
    "source", ["generator", "torch Dataset", "datasets.Dataset", "KeyDataset"]
)
def test_sources(kind, source, make_pipeline, requests):
    """Requests from a {source}, one after another."""
    ask = make_pipeline(kind)
    options = options_of(kind)
    rows = requests(kind)
    expected = [ask(row, **options) for row in rows]
    dataset = Dataset.from_list(rows)
    sources = {
        "generator": (row for row in rows),
        "torch Dataset": Requests(rows),
        "datasets.Dataset": dataset.cast_column("image", Image()),
        "KeyDataset": KeyDataset([{"request": row} for row in rows], "request"),
    }
    found = list(ask(sources[source], **options))
    assert plain(found) == plain(expected)


@both_pipelines
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(kind, dtype, make_pipeline, requests):
    """`pipeline(dtype="{dtype}")`."""
    ask = make_pipeline(kind, dtype=dtype)
    assert ask.model.dtype == getattr(torch, dtype)
    row = requests(kind)[1]
    assert len(ask(row, **options_of(kind))) == 2


@both_pipelines
def test_device(kind, make_pipeline, requests):
    """`device=` and `device_map=`."""
    row = requests(kind)[0]
    expected = make_pipeline(kind)(row, **options_of(kind))
    for place in ({"device": "cpu"}, {"device_map": "cpu"}):
        found = make_pipeline(kind, **place)(row, **options_of(kind))
        assert plain(found) == plain(expected)


@both_pipelines
def test_save(kind, make_pipeline, requests, tmp_path):
    """`save_pretrained` and a pipeline of the folder."""
    ask = make_pipeline(kind)
    ask.save_pretrained(tmp_path)
    loaded = pipeline(TASKS[kind][1], model=str(tmp_path), trust_remote_code=True)
    row = requests(kind)[0]
    options = options_of(kind)
    assert plain(loaded(row, **options)) == plain(ask(row, **options))


@both_pipelines
def test_loaded_parts(kind, make_pipeline, requests):
    """Model and processor as objects."""
    ask = make_pipeline(kind)
    parts = {"model": ask.model, "processor": ask.processor}
    other = pipeline(TASKS[kind][1], **parts)
    row = requests(kind)[0]
    options = options_of(kind)
    assert plain(other(row, **options)) == plain(ask(row, **options))


@both_pipelines
def test_swapped_checkpoint(kind, checkpoints, refused):
    """A checkpoint of the other model."""
    (other,) = [name for name in TASKS if name != kind]
    with refused(Exception, "checkpoint|Unrecognized|recognize"):
        pipeline(TASKS[kind][1], model=checkpoints[other])


@both_pipelines
def test_nothing_asked(kind, make_pipeline, random_image, refused):
    """An image, and nothing asked of it."""
    with refused(ValueError, "at least one"):
        make_pipeline(kind)(random_image())


def texts(answers):
    return [answer["description"] for answer in answers]


@pytest.fixture
def describe(make_pipeline):
    return make_pipeline("description")


DESCRIPTION = pytest.mark.parametrize("kind", ["description"])
SEQUENCES = {
    "samples": {"do_sample": True, "num_return_sequences": 3},
    "beams": {"num_beams": 4, "num_return_sequences": 3},
}


@DESCRIPTION
@pytest.mark.parametrize("search", SEQUENCES)
def test_several_sequences(kind, search, describe, random_image):
    """`num_return_sequences=3`, {search}: three answers for each point."""
    options = {**DESCRIBING, **SEQUENCES[search]}
    answers = describe(random_image(), points=POINTS, **options)
    assert len(answers) == 3 * len(POINTS)
    for number, answer in enumerate(answers):
        assert answer["point"] == POINTS[number // 3]


@DESCRIPTION
@pytest.mark.parametrize(
    "option", ["return_dict_in_generate", "output_scores", "output_logits"]
)
def test_outputs_beside_texts(kind, option, describe, random_image):
    """`{option}=True` changes no answer."""
    expected = texts(describe(random_image(), points=POINTS, **DESCRIBING))
    options = {**DESCRIBING, "return_dict_in_generate": True, option: True}
    assert texts(describe(random_image(), points=POINTS, **options)) == expected


@DESCRIPTION
@pytest.mark.parametrize(
    "way", ["arguments", "generate_kwargs", "generation_config", "constructor"]
)
def test_ways_to_give_options(kind, way, describe, make_pipeline, random_image):
    """Options of `generate` by {way}."""
    options = {"max_new_tokens": 3, "min_new_tokens": 3}
    if way == "arguments":
        answers = describe(random_image(), points=POINTS, **options)
    elif way == "generate_kwargs":
        answers = describe(random_image(), points=POINTS, generate_kwargs=options)
    elif way == "generation_config":
        config = GenerationConfig(**options)
        answers = describe(random_image(), points=POINTS, generation_config=config)
    else:
        answers = make_pipeline(kind, **options)(random_image(), points=POINTS)
    model = describe.model
    inputs = describe.processor(images=random_image(), points=POINTS)
    ids = model.generate(**inputs, **options, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    expected = describe.processor.batch_decode(new, skip_special_tokens=True)
    assert texts(answers) == [text.strip() for text in expected]


@DESCRIPTION
def test_stop_strings(kind, describe, random_image):
    """`stop_strings`."""
    (text,) = texts(describe(random_image(), points=POINTS[:1], **DESCRIBING))
    stop = text[:2]
    options = {"max_new_tokens": 6, "stop_strings": [stop]}
    (found,) = texts(describe(random_image(), points=POINTS[:1], **options))
    assert stop in found and len(found) <= len(text)


@DESCRIPTION
@pytest.mark.parametrize("streamer", ["TextStreamer", "TextIteratorStreamer"])
def test_streamer(kind, streamer, describe, random_image, capsys):
    """`streamer={streamer}(...)`."""
    classes = {
        "TextStreamer": TextStreamer,
        "TextIteratorStreamer": TextIteratorStreamer,
    }
    streaming = classes[streamer](describe.processor.tokenizer, skip_prompt=True)
    options = {**DESCRIBING, "streamer": streaming}
    (text,) = texts(describe(random_image(), points=POINTS[:1], **options))
    shown = capsys.readouterr().out
    if streamer == "TextIteratorStreamer":
        shown = "".join(streaming)
    assert shown.strip() == text


@DESCRIPTION
def test_assistant(kind, describe, make_pipeline, random_image):
    """`assistant_model`, in the call and when the pipeline is made."""
    expected = texts(describe(random_image(), points=POINTS[:1], **DESCRIBING))
    options = {**DESCRIBING, "assistant_model": describe.model}
    assert texts(describe(random_image(), points=POINTS[:1], **options)) == expected
    ask = make_pipeline(kind, assistant_model=describe.model)
    assert texts(ask(random_image(), points=POINTS[:1], **DESCRIBING)) == expected


@DESCRIPTION
def test_assistant_by_path(kind, checkpoints, make_pipeline, refused):
    """`assistant_model` by its path, which transformers looks for among its own classes."""
    with refused(ValueError, "cannot infer suitable model classes"):
        make_pipeline(kind, assistant_model=checkpoints[kind])


@DESCRIPTION
def test_normalized_points(kind, describe, random_image):
    """`normalized=True`: points in parts of the sides."""
    image = random_image()
    parts = [(x / image.width, y / image.height) for x, y in POINTS]
    expected = texts(describe(image, points=POINTS, **DESCRIBING))
    found = texts(describe(image, points=parts, normalized=True, **DESCRIBING))
    assert found == expected


@pytest.mark.parametrize("kind", ["localization"])
def test_heatmaps(kind, make_pipeline, random_image):
    """`return_heatmaps=True`."""
    answers = make_pipeline(kind)(random_image(), text=TEXTS, return_heatmaps=True)
    for answer in answers:
        assert answer["heatmap"].ndim == 2
