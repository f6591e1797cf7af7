"""The click-to-point app without a browser: photos, answers, pictures, and what its server gives away."""

import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from hf_talking_points import (
    MINI_DESCRIPTOR,
    MINI_LOCALIZER,
    PointDescriptionPipeline,
    PointLocalizationPipeline,
    cli,
)

gr = pytest.importorskip("gradio")
import httpx  # noqa: E402  comes with gradio

from hf_talking_points.space import app as space  # noqa: E402  needs gradio

FOLDER = Path(space.__file__).parent
RED = tuple(int(space.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))


@pytest.fixture(scope="module")
def describe(make_descriptor):
    model, processor = make_descriptor()
    model.generation_config.max_new_tokens = (
        20  # the babble of an untrained model would not fit into its localizer's context
    )
    return PointDescriptionPipeline(model=model, processor=processor)


@pytest.fixture(scope="module")
def locate(make_localizer):
    model, processor = make_localizer()
    return PointLocalizationPipeline(model=model, processor=processor)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def marked(picture):
    """(x, y) of the pixels in the first point's colour."""
    return np.argwhere((np.asarray(picture) == RED).all(axis=-1))[:, ::-1]


def test_photos_are_read_upright(tmp_path, random_image):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encoded(random_image(width=80, height=40), "jpeg", exif=exif))
    assert space.read_photo(tmp_path / "a.jpg").size == (40, 80)
    (tmp_path / "b.png").write_bytes(encoded(Image.new("LA", (5, 9)), "png"))
    photo = space.read_photo(tmp_path / "b.png")
    assert photo.mode == "RGB" and photo.size == (5, 9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"words",
        b"\xff\xd8\xff",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "cut",
        "cut png",
    ],
)
def test_broken_photos_are_refused_without_their_path(tmp_path, random_image, content):
    if content == "cut":
        content = encoded(random_image(width=300, height=300), "jpeg")[:2000]
    if content == "cut png":
        content = encoded(random_image(width=300, height=300), "png")[:2000]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(gr.Error, match="cannot be read as a photo") as error:
        space.read_photo(tmp_path / "a.jpg")
    assert str(tmp_path) not in str(error.value)


def test_photos_damaged_anywhere_are_refused_or_read(tmp_path, random_image):
    """No other error gets out, whichever bytes are wrong."""
    rng = np.random.default_rng(0)
    for kind in ("jpeg", "png", "webp", "gif", "tiff", "bmp"):
        whole = encoded(random_image(width=60, height=40), kind)
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, len(content), 5):
                content[place] = rng.integers(256)
            (tmp_path / "a").write_bytes(content)
            try:
                assert space.read_photo(tmp_path / "a").mode == "RGB"
            except gr.Error:
                pass


def test_photos_of_too_many_pixels_are_refused_unread(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(encoded(Image.new("1", (3000, 2000)), "png"))
    monkeypatch.setattr(space, "MAX_PIXELS", 5_000_000)
    monkeypatch.setattr(space, "to_rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(gr.Error, match="3000 x 2000 pixels; at most 5 million"):
        space.read_photo(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(451, 300), (5000, 37), (30, 4000), (1, 1)])
def test_what_is_shown_maps_to_the_photo(size):
    visit = space.Visit(Image.new("RGB", size))
    assert max(visit.view.size) == space.VIEW_SIDE and visit.image.size == size
    for axis in (0, 1):
        assert visit.view.size[axis] / visit.scale[axis] == pytest.approx(size[axis])


def test_description_grows_to_what_the_pipeline_writes(describe, random_image):
    texts = list(space.stream_description(describe, random_image(), (10, 20)))
    assert (
        len(texts) > 3
        and texts[-1] == describe(random_image(), points=[(10, 20)])[0]["description"]
    )
    for shorter, longer in zip(texts, texts[1:-1]):
        assert longer.startswith(shorter)


def test_an_error_while_describing_is_raised(describe, random_image):
    with pytest.raises(ValueError, match="point 0"):
        list(space.stream_description(describe, random_image(), (1000, 20)))


def test_texts_that_cannot_be_located_are_explained(locate, random_image):
    assert space.locate(locate, random_image(), " ") == space.Answer(" ")
    for text, message in (("a <SEG>", "special token"), ("red " * 500, "shorten it")):
        with pytest.raises(gr.Error, match=message):
            space.locate(locate, random_image(), text)


def test_star_and_cross_are_drawn_where_they_belong():
    visit = space.Visit(Image.new("RGB", (100, 50), "gray"))
    assert len(marked(space.draw_answers(visit, 0))) == 0
    visit.add(space.Entry((20, 30)))
    cross = marked(space.draw_answers(visit, 0))
    assert np.abs(np.median(cross, axis=0) / visit.scale - (20, 30)).max() < 0.5
    visit.entries[0].answers[0] = space.Answer("a", (80, 10), 0.5, np.eye(8))
    both = marked(space.draw_answers(visit, 0)) / visit.scale
    assert (both[:, 0] > 78).sum() > 100 and (both[:, 0] < 22).sum() > 100
    assert (marked(space.draw_answers(visit, 1)) == cross).all(), "the other pair has not answered"
    assert len(marked(visit.view)) == 0


def test_answers_are_listed_with_distance_and_as_plain_text(random_image):
    visit = space.Visit(random_image())
    visit.add(space.Entry((10, 20)))
    visit.entries[0].answers[0] = space.Answer("<b>ear</b>", (13, 24), 0.5)
    visit.add(space.Entry())
    listed = space.list_answers(visit, 0)
    assert "clicked (10, 20), found at (13, 24), <b>5.0 px away</b>, confidence 0.50" in listed
    assert "&lt;b&gt;ear&lt;/b&gt;" in listed and "away" not in space.list_answers(visit, 1)


def test_more_points_than_colours_are_refused(random_image):
    visit = space.Visit(random_image())
    for _ in space.COLOURS:
        visit.add(space.Entry())
    with pytest.raises(gr.Error, match="At most 8 points"):
        visit.add(space.Entry())
    assert len(visit.entries) == 8


def test_names_of_checkpoints_hide_their_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "pipeline", lambda task, model: model)
    (tmp_path / "mine").mkdir()
    loaded = space.load_pipelines("point-description", [str(tmp_path / "mine"), "someone/model"])
    assert loaded == {"mine": str(tmp_path / "mine"), "someone/model": "someone/model"}
    with pytest.raises(ValueError, match="two checkpoints for point-description are called 'mine'"):
        space.load_pipelines("point-description", [str(tmp_path / "mine")] * 2)


class FixedPair:
    """Stands for both models of a pair: says its name, and finds a text where its length is."""

    def __init__(self, name, monkeypatch):
        self.name = name
        monkeypatch.setattr(
            space,
            "stream_description",
            lambda pair, image, point: iter([f"{pair.name}", f"{pair.name} {point[0]:.0f}"]),
        )

    def __call__(self, image, text, return_heatmaps):
        return [{"point": (len(text), len(self.name)), "confidence": None, "heatmap": None}]


@pytest.fixture
def page(monkeypatch):
    """(handlers by (element id, event), visit, names of both pairs)"""
    pairs = {name: FixedPair(name, monkeypatch) for name in ("one", "three")}
    blocks = space.build_app(pairs, pairs)
    handlers = {
        (getattr(blocks.blocks[component], "elem_id", None), event): function.fn
        for function in blocks.fns.values()
        for component, event in function.targets
        if component is not None
    }
    return handlers, space.Visit(Image.new("RGB", (100, 50))), ("one", "one", "three", "three")


def at(x, y):
    return SimpleNamespace(index=[x, y])


def run(generator):
    for _ in generator:
        pass


def test_click_asks_the_pairs_that_are_seen(page):
    handlers, visit, names = page
    click = handlers["picture-0", "select"]
    run(click(at(512, 256), visit, space.PIXEL, *names))
    assert visit.entries[0].clicked == (50, 25)
    assert [answer.text for answer in visit.entries[0].answers] == ["one 50", ""]
    visit.pairs = 2
    run(click(at(1023, 0), visit, space.PIXEL, *names))
    assert [answer.text for answer in visit.entries[1].answers] == [
        "one 100",
        "three 100",
    ] and visit.current == 1
    assert [answer.found for answer in visit.entries[1].answers] == [(7, 3), (9, 5)]


def test_click_beside_the_photo_changes_nothing(page):
    handlers, visit, names = page
    with pytest.raises(ValueError, match="point 0"):
        run(handlers["picture-0", "select"](at(-3, 5), visit, space.PIXEL, *names))
    assert visit.entries == []


def test_edited_description_is_its_own_pairs_and_words_are_for_both(page):
    handlers, visit, names = page
    edit = handlers["text-1", "submit"]
    visit.pairs = 2
    run(edit(visit, space.PIXEL, "ear", *names))
    assert [answer.text for answer in visit.entries[0].answers] == ["", "ear"]
    run(edit(visit, space.WORDS, "nose", *names))
    assert [answer.found for answer in visit.entries[0].answers] == [(4, 3), (4, 5)]
    run(handlers["picture-0", "select"](at(10, 10), visit, space.WORDS, *names))
    assert (
        len(visit.entries) == 1
        and visit.entries[0].clicked is not None
        and visit.entries[0].answers[0].text == "nose"
    )


def test_pair_that_is_added_or_changed_answers_all_points(page):
    handlers, visit, names = page
    click, compare, again = (
        handlers["picture-0", "select"],
        handlers["compare", "input"],
        handlers["Descriptor-1", "input"],
    )
    for x in (0, 512):
        run(click(at(x, 0), visit, space.PIXEL, *names))
    run(compare(visit, True, space.PIXEL, *names))
    assert [entry.answers[1].text for entry in visit.entries] == ["three 0", "three 50"]
    run(again(visit, space.WORDS, *names[:2], "one", "one"))
    assert [entry.answers[1].found for entry in visit.entries] == [(7, 3), (8, 3)], (
        "texts stay where words are the question"
    )


@pytest.fixture(scope="module")
def server(describe, locate):
    blocks = space.build_app({"tiny": describe}, {"tiny": locate})
    _, url, _ = space.launch(
        blocks, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", max_file_size="100kb"
    )
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    blocks.close()


def ask(client, function, data, **fields):
    """-> the last message of a queued call, as a browser gets it."""
    session = f"s{threading.get_ident()}{np.random.default_rng().integers(1 << 40)}"
    client.post(
        "gradio_api/queue/join",
        json={"data": data, "fn_index": function, "session_hash": session, **fields},
    ).raise_for_status()
    with client.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                return message


def function_of(client, elem_id, event):
    config = client.get("config").json()
    [component] = [
        part["id"] for part in config["components"] if part["props"].get("elem_id") == elem_id
    ]
    [function] = [
        entry["id"] for entry in config["dependencies"] if [component, event] in entry["targets"]
    ]
    return function


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        __file__,
        f"{FOLDER}/app.py",
        f"{FOLDER}/photos/../app.py",
        "app.py",
        "setup.cfg",
    ],
)
def test_no_file_of_the_server_is_readable(server, path):
    assert server.get(f"gradio_api/file={path}").status_code in (403, 404)
    message = ask(
        server,
        function_of(server, "upload", "upload"),
        [None, {"path": path, "meta": {"_type": "gradio.FileData"}}],
    )
    assert message["success"] is False and message["output"].get("error") is None
    assert "root:" not in json.dumps(message)


def test_uploads_are_limited_and_messages_hold_no_path(server):
    assert (
        server.post("gradio_api/upload", files={"files": ("a.jpg", bytes(200_000))}).status_code
        == 413
    )
    [path] = server.post("gradio_api/upload", files={"files": ("a.jpg", b"words")}).json()
    message = ask(
        server,
        function_of(server, "upload", "upload"),
        [None, {"path": path, "meta": {"_type": "gradio.FileData"}}],
    )
    assert "cannot be read as a photo" in message["output"]["error"] and Path(
        path
    ).parent.name not in json.dumps(message)


def test_page_names_no_folder_and_offers_no_other_checkpoint(server):
    config = server.get("config").text
    assert str(FOLDER) not in config and MINI_DESCRIPTOR not in config
    assert server.get("gradio_api/info").json()["named_endpoints"] == {}
    names = [MINI_DESCRIPTOR] + ["tiny"] * 3
    event = {"index": [5, 5], "value": None}
    message = ask(
        server,
        function_of(server, "picture-0", "select"),
        [None, space.PIXEL, *names],
        event_data=event,
    )
    assert (
        message["success"] is False
        and "not in the list of choices: ['tiny']" in message["output"]["error"]
    )


def test_visitors_at_once_get_their_own_answers(server, describe):
    function = function_of(server, "picture-0", "select")
    photo = Image.open(space.PHOTOS[0])
    indices = [[100 * i, 50 * i] for i in range(8)]
    answers = {}

    def visit(number):
        data, event = [None, space.PIXEL, *["tiny"] * 4], {"index": indices[number], "value": None}
        answers[number] = ask(server, function, data, event_data=event)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, (x, y) in enumerate(indices):
        width, height = space.Visit(photo).view.size
        [row] = describe(photo, points=[(x * photo.width / width, y * photo.height / height)])
        assert answers[number]["success"], answers[number]
        assert json.dumps(row["description"])[1:-1] in json.dumps(answers[number]["output"])


def test_space_folder_is_ready():
    front_matter = yaml.safe_load((FOLDER / "README.md").read_text().split("---")[1])
    pins = dict(
        line.split("==")
        for line in (Path(__file__).parent.parent / "constraints.txt").read_text().split()
    )
    assert front_matter["sdk"] == "gradio" and front_matter["sdk_version"] == pins["gradio"]
    assert (FOLDER / front_matter["app_file"]).is_file() and "hf-talking-points[app]" in (
        FOLDER / "requirements.txt"
    ).read_text()
    for photo in space.PHOTOS:
        assert photo.stat().st_size <= 300_000 and re.search(
            photo.stem, (FOLDER / "README.md").read_text()
        )


def test_command_line_starts_it_with_the_embedded_pair_or_others(monkeypatch):
    started = []
    monkeypatch.setattr(space, "run", lambda *checkpoints: started.append(checkpoints))
    for options in ([], ["--descriptor", "a", "--descriptor", "b"]):
        assert CliRunner().invoke(cli.app, ["app", *options]).exit_code == 0
    assert started == [([MINI_DESCRIPTOR], [MINI_LOCALIZER]), (["a", "b"], [MINI_LOCALIZER])]
