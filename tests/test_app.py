"""The click-to-point app without a browser: photos, answers, pictures, and what its server gives away."""

import io
import json
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
from hf_talking_points.visualization import MARK_COLORS

gr = pytest.importorskip("gradio")
import httpx  # noqa: E402  comes with gradio

from hf_talking_points.space import app as space  # noqa: E402  needs gradio

FOLDER = Path(space.__file__).parent
ROOT = Path(__file__).parent.parent
RED = tuple(int(MARK_COLORS[0][start : start + 2], 16) for start in (1, 3, 5))


@pytest.fixture(scope="module")
def describe(make_descriptor):
    model, processor = make_descriptor()
    # the babble of an untrained model would not fit into its localizer's context
    model.generation_config.max_new_tokens = 20
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
    """(x, y) of the pixels in the first point's color."""
    is_red = (np.asarray(picture) == RED).all(axis=-1)
    return np.argwhere(is_red)[:, ::-1]


def test_photos_are_read_upright(tmp_path, random_image):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(random_image(width=80, height=40), "jpeg", exif=exif)
    (tmp_path / "a.jpg").write_bytes(content)
    assert space.read_photo(tmp_path / "a.jpg").size == (40, 80)


def test_photos_are_read_in_rgb(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(Image.new("LA", (5, 9)), "png"))
    photo = space.read_photo(tmp_path / "a.png")
    assert photo.mode == "RGB"
    assert photo.size == (5, 9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"words",
        b"\xff\xd8\xff",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "jpeg",
        "png",
    ],
)
def test_broken_photos_are_refused_without_their_path(tmp_path, random_image, content):
    if isinstance(content, str):  # a file of this format that was cut off
        content = encoded(random_image(width=300, height=300), content)[:2000]
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(gr.Error, match="cannot be read as a photo") as error:
        space.read_photo(tmp_path / "a.jpg")
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "bmp"])
def test_photos_damaged_anywhere_are_refused_or_read(tmp_path, random_image, kind):
    """No other error gets out, whichever bytes are wrong."""
    rng = np.random.default_rng(0)
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
    assert max(visit.shown.size) == space.SHOWN_SIDE
    assert visit.size == size
    assert visit.on_photo(visit.shown.size) == pytest.approx(size)
    assert visit.on_shown(size) == pytest.approx(visit.shown.size)


@pytest.mark.parametrize("size", [(451, 300), (6000, 37), (2000, 4000), (1, 1)])
def test_what_is_kept_of_a_photo_is_small_and_maps_to_it(size):
    photo = Image.new("RGB", size)
    visit = space.Visit(photo)
    assert max(visit.image.size) <= space.KEPT_SIDE
    assert (visit.image is photo) == (max(size) <= space.KEPT_SIDE)
    assert visit.on_kept(size) == pytest.approx(visit.image.size)
    point = (0.3 * size[0], 0.9 * size[1])
    assert visit.from_kept(visit.on_kept(point)) == pytest.approx(point)
    assert photo.size == size


def test_a_place_found_is_one_of_the_photo(locate):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    photo = Image.fromarray(pixels).resize((4000, 3000))
    visit = space.Visit(photo)
    found = space.locate(locate, visit, "the red eye").found
    [row] = locate(visit.image, text="the red eye")
    scale = 4000 / space.KEPT_SIDE
    assert found == pytest.approx([scale * value for value in row["point"]])


def test_description_grows_to_what_the_pipeline_writes(describe, random_image):
    texts = list(space.stream_description(describe, random_image(), (10, 20), "rich"))
    [row] = describe(random_image(), points=[(10, 20)])
    assert len(texts) > 3
    assert texts[-1] == row["description"]
    for shorter, longer in zip(texts, texts[1:-1]):
        assert longer.startswith(shorter)


def test_an_error_while_describing_is_raised(describe, random_image):
    with pytest.raises(ValueError, match="point 0"):
        list(space.stream_description(describe, random_image(), (1000, 20), "rich"))


def test_an_empty_text_is_no_question(locate, random_image):
    visit = space.Visit(random_image())
    assert space.locate(locate, visit, " ") == space.Answer(" ")


@pytest.mark.parametrize(
    "text, message", [("a <SEG>", "special token"), ("red " * 500, "shorten it")]
)
def test_texts_that_cannot_be_located_are_explained(
    locate, random_image, text, message
):
    with pytest.raises(gr.Error, match=message):
        space.locate(locate, space.Visit(random_image()), text)


def test_star_and_cross_are_drawn_where_they_belong():
    visit = space.Visit(Image.new("RGB", (100, 50), "gray"))
    assert len(marked(space.draw_answers(visit, 0))) == 0

    visit.add(space.Entry((20, 30)))
    star = marked(space.draw_answers(visit, 0))
    middle = visit.on_photo(np.median(star, axis=0))
    assert middle == pytest.approx((20, 30), abs=0.5)

    visit.entries[0].answers[0] = space.Answer("a", (80, 10), 0.5, np.eye(8))
    both = marked(space.draw_answers(visit, 0)) / visit.scale
    assert (both[:, 0] > 78).sum() > 100
    assert (both[:, 0] < 22).sum() > 100
    other_pair = marked(space.draw_answers(visit, 1))  # has not answered
    assert (other_pair == star).all()
    assert len(marked(visit.shown)) == 0


def test_a_click_is_a_star_and_a_place_found_a_cross():
    """The middle of a star is filled all around, between the arms of a cross there is nothing."""
    visit = space.Visit(Image.new("RGB", (100, 50), "gray"))
    visit.add(space.Entry((20, 25)))
    visit.entries[0].answers[0] = space.Answer("a", (80, 25))
    picture = space.draw_answers(visit, 0)
    reach = 0.5 * space.MARK_RADIUS
    for place, is_filled in (((20, 25), True), ((80, 25), False)):
        x, y = visit.on_shown(place)
        below = picture.getpixel((round(x), round(y - reach)))
        assert (below == RED) == is_filled


def test_answers_are_listed_with_distance_and_as_plain_text(random_image):
    visit = space.Visit(random_image())
    visit.add(space.Entry((10, 20)))
    visit.entries[0].answers[0] = space.Answer("<b>ear</b>", (13, 24), 0.5)
    visit.add(space.Entry())
    listed = space.list_answers(visit, 0)
    assert (
        "clicked (10, 20), found at (13, 24), <b>5.0 px away</b>, unsure (50 %)"
        in listed
    )
    assert "&lt;b&gt;ear&lt;/b&gt;" in listed
    assert "away" not in space.list_answers(visit, 1)


def test_more_points_than_colors_are_refused(random_image):
    visit = space.Visit(random_image())
    for _ in MARK_COLORS:
        visit.add(space.Entry())
    with pytest.raises(gr.Error, match="At most 8 points"):
        visit.add(space.Entry())
    assert len(visit.entries) == 8


def test_names_of_checkpoints_hide_their_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "pipeline", lambda task, model: model)
    folder = tmp_path / "mine"
    folder.mkdir()
    loaded = space.load_pipelines("point-description", [str(folder), "someone/model"])
    assert loaded == {"mine": str(folder), "someone/model": "someone/model"}
    with pytest.raises(
        ValueError, match="two checkpoints for point-description are called 'mine'"
    ):
        space.load_pipelines("point-description", [str(folder), str(folder)])


class FixedPair:
    """Stands for both models of a pair: says its name, and finds a text where its length is."""

    processor = SimpleNamespace(styles=["rich", "short"])

    def __init__(self, name):
        self.name = name

    def __call__(self, image, text, return_heatmaps):
        point = (len(text), len(self.name))
        return [{"point": point, "confidence": None, "heatmap": None}]


def say_name(pair, image, point, style):
    yield pair.name
    yield f"{pair.name} {point[0]:.0f}" + ("" if style == "rich" else f" {style}")


@pytest.fixture
def handlers(monkeypatch):
    """(element id, event) -> what the page does then, with two pairs to choose from."""
    monkeypatch.setattr(space, "stream_description", say_name)
    pairs = {"one": FixedPair("one"), "three": FixedPair("three")}
    blocks = space.build_app(pairs, pairs)
    found = {}
    for function in blocks.fns.values():
        for component, event in function.targets:
            if component is not None:
                element = getattr(blocks.blocks[component], "elem_id", None)
                found[element, event] = function.fn
    return found


@pytest.fixture
def visit():
    return space.Visit(Image.new("RGB", (100, 50)))


NAMES = ("one", "one", "three", "three")
CHOICES = ("rich", *NAMES)


def at(x, y):
    return SimpleNamespace(index=[x, y])


def run(generator):
    for _ in generator:
        pass


def texts_of(entry):
    return [answer.text for answer in entry.answers]


def found_of(entry):
    return [answer.found for answer in entry.answers]


def test_click_asks_the_pairs_that_are_seen(handlers, visit):
    click = handlers["picture-0", "select"]
    run(click(at(512, 256), visit, space.PIXEL, *CHOICES))
    assert visit.entries[0].clicked == (50, 25)
    assert texts_of(visit.entries[0]) == ["one 50", ""]

    visit.pairs = 2
    run(click(at(1023, 0), visit, space.PIXEL, *CHOICES))
    assert visit.current == 1
    assert texts_of(visit.entries[1]) == ["one 100", "three 100"]
    assert found_of(visit.entries[1]) == [(7, 3), (9, 5)]


def test_a_click_is_described_in_the_chosen_style(handlers, visit):
    click = handlers["picture-0", "select"]
    run(click(at(512, 256), visit, space.PIXEL, "short", *NAMES))
    assert texts_of(visit.entries[0])[0] == "one 50 short"


def test_click_beside_the_photo_changes_nothing(handlers, visit):
    with pytest.raises(ValueError, match="point 0"):
        run(handlers["picture-0", "select"](at(-3, 5), visit, space.PIXEL, *CHOICES))
    assert visit.entries == []


def test_an_edited_description_is_that_of_its_pair(handlers, visit):
    visit.pairs = 2
    run(handlers["text-1", "submit"](visit, "ear", space.PIXEL, *CHOICES))
    assert texts_of(visit.entries[0]) == ["", "ear"]


def test_words_are_for_both_pairs(handlers, visit):
    visit.pairs = 2
    run(handlers["text-1", "submit"](visit, "nose", space.WORDS, *CHOICES))
    assert found_of(visit.entries[0]) == [(4, 3), (4, 5)]
    run(handlers["picture-0", "select"](at(10, 10), visit, space.WORDS, *CHOICES))
    [entry] = visit.entries
    assert entry.clicked is not None
    assert entry.answers[0].text == "nose"


def test_pair_that_is_added_or_changed_answers_all_points(handlers, visit):
    click = handlers["picture-0", "select"]
    run(click(at(0, 0), visit, space.PIXEL, *CHOICES))
    run(click(at(512, 0), visit, space.PIXEL, *CHOICES))
    run(handlers["compare", "input"](visit, True, space.PIXEL, *CHOICES))
    second_texts = [entry.answers[1].text for entry in visit.entries]
    assert second_texts == ["three 0", "three 50"]

    # texts stay where words are the question
    changed = ("rich", "one", "one", "one", "one")
    run(handlers["Descriptor-1", "input"](visit, space.WORDS, *changed))
    second_found = [entry.answers[1].found for entry in visit.entries]
    assert second_found == [(7, 3), (8, 3)]


@pytest.fixture(scope="module")
def server(describe, locate):
    blocks = space.build_app({"tiny": describe}, {"tiny": locate})
    _, url, _ = space.launch(
        blocks,
        prevent_thread_lock=True,
        quiet=True,
        server_name="127.0.0.1",
        max_file_size="100kb",
    )
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client
    blocks.close()


def ask(client, function, data, **fields):
    """The last message of a queued call, as a browser gets it."""
    session = f"s{threading.get_ident()}{np.random.default_rng().integers(1 << 40)}"
    question = {"data": data, "fn_index": function, "session_hash": session, **fields}
    client.post("gradio_api/queue/join", json=question).raise_for_status()
    with client.stream(
        "GET", "gradio_api/queue/data", params={"session_hash": session}
    ) as lines:
        for line in lines.iter_lines():
            if not line.startswith("data:"):
                continue
            message = json.loads(line.removeprefix("data:"))
            if message.get("msg") == "process_completed":
                return message


def function_of(client, elem_id, event):
    """Number of the function that an event of an element calls."""
    config = client.get("config").json()
    [component] = [
        c["id"] for c in config["components"] if c["props"].get("elem_id") == elem_id
    ]
    target = [component, event]
    [function] = [d["id"] for d in config["dependencies"] if target in d["targets"]]
    return function


def upload(client, path):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return ask(client, function_of(client, "upload", "upload"), [None, file])


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
    message = upload(server, path)
    assert message["success"] is False
    assert message["output"].get("error") is None
    assert "root:" not in json.dumps(message)


def test_uploads_are_limited(server):
    answer = server.post(
        "gradio_api/upload", files={"files": ("a.jpg", bytes(200_000))}
    )
    assert answer.status_code == 413


def test_messages_hold_no_path(server):
    [path] = server.post(
        "gradio_api/upload", files={"files": ("a.jpg", b"words")}
    ).json()
    message = upload(server, path)
    assert "cannot be read as a photo" in message["output"]["error"]
    assert Path(path).parent.name not in json.dumps(message)


def test_page_names_no_folder(server):
    config = server.get("config").text
    assert str(FOLDER) not in config
    assert MINI_DESCRIPTOR not in config
    assert server.get("gradio_api/info").json()["named_endpoints"] == {}


def test_page_offers_no_other_checkpoint(server):
    names = ["rich", MINI_DESCRIPTOR, "tiny", "tiny", "tiny"]
    event = {"index": [5, 5], "value": None}
    click = function_of(server, "picture-0", "select")
    message = ask(server, click, [None, space.PIXEL, *names], event_data=event)
    assert message["success"] is False
    assert "not in the list of choices: ['tiny']" in message["output"]["error"]


def test_visitors_at_once_get_their_own_answers(server, describe):
    click = function_of(server, "picture-0", "select")
    photo = Image.open(space.PHOTOS[0])
    places = [[100 * number, 50 * number] for number in range(8)]
    answers = {}

    def visit_page(number):
        data = [None, space.PIXEL, "rich", "tiny", "tiny", "tiny", "tiny"]
        event = {"index": places[number], "value": None}
        answers[number] = ask(server, click, data, event_data=event)

    threads = [
        threading.Thread(target=visit_page, args=(number,)) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    visit = space.Visit(photo)
    for number, place in enumerate(places):
        [row] = describe(photo, points=[visit.on_photo(place)])
        description = json.dumps(row["description"])[1:-1]
        assert answers[number]["success"], answers[number]
        assert description in json.dumps(answers[number]["output"])


@pytest.mark.parametrize("endpoint", ["run/predict", "api/predict", "run/any_name"])
def test_nobody_passes_by_the_queue(server, endpoint):
    find = function_of(server, "text-0", "submit")
    data = [None, "the eye", space.PIXEL, "rich", *["tiny"] * 4]
    assert ask(server, find, data)["success"]
    asked = {"data": data, "fn_index": find, "session_hash": "somebody"}
    answer = server.post(f"gradio_api/{endpoint}", json=asked)
    assert answer.status_code >= 400
    assert "found at" not in answer.text


def test_space_folder_is_ready():
    readme = (FOLDER / "README.md").read_text()
    front_matter = yaml.safe_load(readme.split("---")[1])
    assert front_matter["sdk"] == "gradio"
    pins = (ROOT / "constraints.txt").read_text().split()
    assert f"gradio=={front_matter['sdk_version']}" in pins
    assert (FOLDER / front_matter["app_file"]).is_file()
    assert "hf-talking-points[app]" in (FOLDER / "requirements.txt").read_text()
    for photo in space.PHOTOS:
        assert photo.stat().st_size <= 300_000
        assert photo.stem in readme


@pytest.mark.parametrize(
    "options, descriptors",
    [([], [MINI_DESCRIPTOR]), (["--descriptor", "a", "--descriptor", "b"], ["a", "b"])],
)
def test_command_line_starts_it_with_the_embedded_pair_or_others(
    monkeypatch, options, descriptors
):
    started = []

    def run_app(*checkpoints):
        started.append(checkpoints)

    monkeypatch.setattr(space, "run", run_app)
    result = CliRunner().invoke(cli.app, ["app", *options])
    assert result.exit_code == 0
    assert started == [(descriptors, [MINI_LOCALIZER])]
