"""The click-to-point page in a headless Chromium: `make test-browser`."""

import io
import math
import os
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from transformers import TextIteratorStreamer, pipeline

from hf_talking_points.visualization import MARK_COLORS

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
from hf_talking_points.space.app import (  # noqa: E402  needs gradio
    PHOTOS,
    SHOWN_SIDE,
    WORDS,
    Visit,
    build_app,
    launch,
)

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT = 120_000  # ms; twenty visitors share one busy core
EYE = (172, 117)
NOSE = (266, 235)
WIDTH, HEIGHT = 451, 300  # of the first photo


@pytest.fixture(scope="module")
def describe():
    return pipeline("point-description")


@pytest.fixture(scope="module")
def address(describe):
    locate = pipeline("point-localization")
    # the same weights under two names: what is tested is that each panel asks its own
    app = build_app({"mini": describe, "twin": describe}, {"mini": locate})
    _, url, _ = launch(
        app,
        prevent_thread_lock=True,
        quiet=True,
        server_name="127.0.0.1",
        max_file_size="1mb",
    )
    yield url
    app.close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no chromium; CHROMIUM names another path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitors(browser, address):
    """A function that opens the page as a new visitor; at the end no page may have met an error or asked another
    host."""
    contexts = []
    complaints = []

    def note_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            complaints.append(request.url)

    def note_error(error):
        complaints.append(str(error))

    def open_page(width=1280, height=900, **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", note_error)
        page.on("request", note_request)
        page.goto(address)
        page.locator("#picture-0 img").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def click(page, point, panel=0, size=(WIDTH, HEIGHT)):
    """Clicks at a point of the photo, whose size in pixels is `size`."""
    picture = page.locator(f"#picture-{panel} img")
    box = picture.bounding_box()
    x = point[0] / size[0] * box["width"]
    y = point[1] / size[1] * box["height"]
    # scrolls there: a tall picture does not fit into the window
    picture.click(position={"x": x, "y": y})


def write(page, text):
    page.locator("#text-0 textarea").fill(text)
    page.locator("#text-0 button").get_by_text("Find").click()


def wait_for_answers(page, count=1, panel=0):
    """The lines of the answers, once `count` of them are found."""
    answers = page.locator(f"#answers-{panel}")
    pattern = re.compile("found at.*" * count, re.DOTALL)
    sync_api.expect(answers).to_contain_text(pattern, timeout=TIMEOUT)
    return answers.inner_text()


def wait_until_not_found_at(page, point):
    answers = page.locator("#answers-0")
    text = "found at ({}, {})".format(*point)
    sync_api.expect(answers).not_to_contain_text(text, timeout=TIMEOUT)


def points_after(word, answers):
    """The points (x, y) that the answers name after a word."""
    matches = re.findall(rf"{word} \((-?\d+), (-?\d+)\)", answers)
    return [(int(x), int(y)) for x, y in matches]


def middle_of_marks(page, color=MARK_COLORS[0], panel=0):
    """Middle of what is drawn in `color` on the picture, in pixels of the first photo, or None."""
    url = page.locator(f"#picture-{panel} img").get_attribute("src")
    content = page.request.get(url).body()
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    is_wanted = np.abs(picture - wanted).max(axis=-1) < 40
    rows, columns = np.nonzero(is_wanted)
    if len(rows) < 50:
        return None
    height, width = is_wanted.shape
    return np.median(columns) * WIDTH / width, np.median(rows) * HEIGHT / height


def toast(page):
    """The message that the page shows."""
    message = page.locator(".toast-body").first
    message.wait_for()
    text = message.inner_text()
    assert "/" not in text.replace("image/*", ""), "no path in a message"
    return text


def test_click_is_described_and_found(visitors, describe):
    page = visitors()
    assert middle_of_marks(page) is None
    click(page, EYE)
    answers = wait_for_answers(page)
    [clicked] = points_after("clicked", answers)
    assert math.dist(clicked, EYE) <= 1.5

    text = page.locator("#text-0 textarea").input_value()
    [row] = describe(Image.open(PHOTOS[0]), points=[clicked])
    assert "cat" in text
    assert "eye" in text
    assert "eye" in row["description"]

    [found] = points_after("found at", answers)
    distance = float(re.search(r"([\d.]+) px away", answers)[1])
    assert distance == pytest.approx(math.dist(found, clicked), abs=1.5)
    x, y = middle_of_marks(page)
    assert 0 < x < WIDTH
    assert 0 < y < HEIGHT
    assert math.dist((x, y), found) < 12


def test_description_streams_in(visitors, monkeypatch):
    put = TextIteratorStreamer.put

    def put_slowly(*args):
        time.sleep(0.1)  # or a busy browser sees only the end
        return put(*args)

    monkeypatch.setattr(TextIteratorStreamer, "put", put_slowly)
    page = visitors()
    page.evaluate(
        """() => {
        const box = document.querySelector('#text-0 textarea');
        window.lengths = new Set();
        setInterval(() => window.lengths.add(box.value.length), 1);
    }"""
    )
    click(page, NOSE)
    wait_for_answers(page)
    assert page.evaluate("window.lengths.size") > 3


def test_edited_text_moves_the_cross(visitors):
    page = visitors()
    click(page, EYE)
    [before] = points_after("found at", wait_for_answers(page))
    marks = middle_of_marks(page)
    write(page, "A large cat in the middle of the image. The point is on its nose.")
    wait_until_not_found_at(page, before)
    [after] = points_after("found at", wait_for_answers(page))
    assert math.dist(after, NOSE) < 45
    assert math.dist(before, after) > 45
    assert math.dist(middle_of_marks(page), marks) > 30

    box = page.locator("#text-0 textarea")
    box.press("Control+A")
    box.press_sequentially("right eye")  # found while it is typed
    wait_until_not_found_at(page, after)
    assert box.input_value() == "right eye"


def test_words_alone_are_found_and_measured_from_a_click(visitors):
    page = visitors()
    page.locator("#direction").get_by_label(WORDS, exact=True).check()
    page.locator("#another").wait_for()
    write(page, "The nose of the cat.")
    assert "away" not in wait_for_answers(page)
    click(page, NOSE)
    sync_api.expect(page.locator("#answers-0")).to_contain_text(
        "px away", timeout=TIMEOUT
    )
    assert page.locator("#text-0 textarea").input_value() == "The nose of the cat."


def test_several_points_another_photo_and_clear(visitors):
    page = visitors()
    text = page.locator("#text-0 textarea")
    picture = page.locator("#picture-0 img")
    click(page, EYE)
    wait_for_answers(page, 1)
    click(page, NOSE)
    answers = wait_for_answers(page, 2)
    assert len(points_after("found at", answers)) == 2
    assert middle_of_marks(page, MARK_COLORS[1]) is not None

    second_text = text.input_value()
    page.locator("#chosen").get_by_label("1", exact=True).check()
    sync_api.expect(text).not_to_have_value(second_text, timeout=TIMEOUT)
    page.locator("#clear").click()
    sync_api.expect(page.locator("#answers-0")).not_to_contain_text(
        "found", timeout=TIMEOUT
    )

    source = picture.get_attribute("src")
    page.locator("#gallery button.thumbnail-item").nth(2).click()
    sync_api.expect(picture).not_to_have_attribute("src", source, timeout=TIMEOUT)
    click(page, (320, 213), size=(640, 427))
    assert "clicked (320, 21" in wait_for_answers(page)


def test_two_checkpoints_side_by_side(visitors):
    page = visitors()
    click(page, EYE)
    wait_for_answers(page)
    assert not page.locator("#picture-1").is_visible()
    page.locator("#compare input").check()
    second = points_after("found at", wait_for_answers(page, panel=1))
    assert second == points_after("found at", wait_for_answers(page))
    assert page.locator("#Descriptor-1 input").input_value() == "twin"

    click(page, NOSE, panel=1)
    second = points_after("found at", wait_for_answers(page, 2, panel=1))
    assert second == points_after("found at", wait_for_answers(page, 2))


def test_phone_sees_everything_within_its_width(visitors):
    page = visitors(390, 844, device_scale_factor=2, is_mobile=True, has_touch=True)
    click(page, EYE)
    wait_for_answers(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in (
        "#picture-0 img",
        "#text-0 textarea",
        "#answers-0",
        "#gallery",
        "#upload",
    ):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0, part
        assert box["x"] + box["width"] <= 390, part


def upload(page, name, content):
    file = {"name": name, "mimeType": "image/jpeg", "buffer": content}
    page.locator("input[type=file]").first.set_input_files(file)


def test_upload_is_shown_upright(visitors):
    page = visitors()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    buffer = io.BytesIO()
    Image.open(PHOTOS[0]).save(buffer, "jpeg", exif=exif)
    picture = page.locator("#picture-0 img")
    source = picture.get_attribute("src")
    upload(page, "turned.jpg", buffer.getvalue())
    sync_api.expect(picture).not_to_have_attribute("src", source, timeout=TIMEOUT)
    page.wait_for_function(
        "(i => i.complete && i.naturalHeight > i.naturalWidth)"
        "(document.querySelector('#picture-0 img'))"
    )
    click(page, (100, 400), size=(HEIGHT, WIDTH))
    assert re.search(r"clicked \((99|100|101), (399|400|401)\)", wait_for_answers(page))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("broken.jpg", b"\xff\xd8 this is no photo", "cannot be read as a photo"),
        ("cut.jpg", PHOTOS[0].read_bytes()[:5000], "cannot be read as a photo"),
        ("notes.txt", b"words", "Invalid file type"),
        ("large.jpg", b"\xff\xd8" + bytes(1_100_000), "maximum allowed size"),
    ],
)
def test_bad_upload_shows_a_message_and_the_page_goes_on(
    visitors, name, content, message
):
    page = visitors()
    upload(page, name, content)
    assert message.lower() in toast(page).lower()
    click(page, EYE)
    wait_for_answers(page)


def clicks_that_are_shown_as(whole, scale):
    """Pixels of the picture, along one axis, that the page tells as this whole pixel of the photo."""
    return [
        place / scale for place in range(SHOWN_SIDE) if round(place / scale) == whole
    ]


def test_twenty_visitors_at_once_get_their_own_answers(visitors, describe):
    points = []
    for y in (35, 110, 185, 260):
        points += [(x, y) for x in (40, 130, 220, 310, 400)]
    pages = [visitors(600, 700) for _ in points]
    for page, point in zip(pages, points):
        click(page, point)
    photo = Image.open(PHOTOS[0])
    scale_x, scale_y = Visit(photo).scale
    for page, point in zip(pages, points):
        [clicked] = points_after("clicked", wait_for_answers(page))
        assert math.dist(clicked, point) <= 2
        possible = []
        for x in clicks_that_are_shown_as(clicked[0], scale_x):
            possible += [(x, y) for y in clicks_that_are_shown_as(clicked[1], scale_y)]
        expected = {row["description"] for row in describe(photo, points=possible)}
        assert page.locator("#text-0 textarea").input_value() in expected
        assert page.locator(".toast-body").count() == 0
