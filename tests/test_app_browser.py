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

from hf_talking_points.visualization import COLOURS

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
from hf_talking_points.space.app import PHOTOS, WORDS, build_app, launch  # noqa: E402  needs gradio

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
TIMEOUT = 120_000  # ms; twenty visitors share one busy core
EYE, NOSE = (172, 117), (266, 235)
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
        app, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", max_file_size="1mb"
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
    """A function that opens the page as a new visitor; at the end no page may have met an error or asked another host."""
    contexts, complaints = [], []

    def note_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            complaints.append(request.url)

    def open_page(width=1280, height=900, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", note_request)
        page.goto(address)
        page.locator("#picture-0 img").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def click(page, point, panel=0, size=(WIDTH, HEIGHT)):
    picture = page.locator(f"#picture-{panel} img")
    box = picture.bounding_box()
    # scrolls there: a tall picture does not fit into the window
    picture.click(
        position={
            axis: p / side * box[length]
            for axis, length, p, side in zip("xy", ("width", "height"), point, size)
        }
    )


def write(page, text):
    page.locator("#text-0 textarea").fill(text)
    page.locator("#text-0 button").get_by_text("Find").click()


def wait_for_answers(page, count=1, panel=0):
    """-> the lines of the answers, once `count` of them are found."""
    answers = page.locator(f"#answers-{panel}")
    sync_api.expect(answers).to_contain_text(
        re.compile("found at.*" * count, re.DOTALL), timeout=TIMEOUT
    )
    return answers.inner_text()


def found_points(answers):
    return [
        tuple(map(int, match)) for match in re.findall(r"found at \((-?\d+), (-?\d+)\)", answers)
    ]


def shown_colour(page, colour=COLOURS[0], panel=0):
    """Middle of what is drawn in `colour` on the picture, in pixels of the first photo, or None."""
    url = page.locator(f"#picture-{panel} img").get_attribute("src")
    picture = np.asarray(
        Image.open(io.BytesIO(page.request.get(url).body())).convert("RGB")
    ).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(picture - wanted).max(axis=-1) < 40)
    if len(rows) < 50:
        return None
    return np.median(columns) * WIDTH / picture.shape[1], np.median(rows) * HEIGHT / picture.shape[
        0
    ]


def toast(page):
    message = page.locator(".toast-body").first
    message.wait_for()
    text = message.inner_text()
    assert "/" not in text.replace("image/*", ""), "no path in a message"
    return text


def test_click_is_described_and_found(visitors, describe):
    page = visitors()
    assert shown_colour(page) is None
    click(page, EYE)
    answers = wait_for_answers(page)
    [clicked] = re.findall(r"clicked \((\d+), (\d+)\)", answers)
    assert math.dist(map(int, clicked), EYE) <= 1.5
    text = page.locator("#text-0 textarea").input_value()
    [row] = describe(Image.open(PHOTOS[0]), points=[tuple(map(int, clicked))])
    assert "cat" in text and "eye" in text and "eye" in row["description"]
    [found] = found_points(answers)
    distance = float(re.search(r"([\d.]+) px away", answers)[1])
    assert distance == pytest.approx(math.dist(found, map(int, clicked)), abs=1.5)
    star = shown_colour(page)
    assert 0 < star[0] < WIDTH and 0 < star[1] < HEIGHT and math.dist(star, found) < 12


def test_description_streams_in(visitors, monkeypatch):
    put = TextIteratorStreamer.put
    monkeypatch.setattr(
        TextIteratorStreamer, "put", lambda *args: time.sleep(0.1) or put(*args)
    )  # or a busy browser sees only the end
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


def test_edited_text_moves_the_star(visitors):
    page = visitors()
    click(page, EYE)
    [before] = found_points(wait_for_answers(page))
    star = shown_colour(page)
    write(page, "A large cat in the middle of the image. The point is on its nose.")
    sync_api.expect(page.locator("#answers-0")).not_to_contain_text(
        "found at ({}, {})".format(*before), timeout=TIMEOUT
    )
    [after] = found_points(wait_for_answers(page))
    assert math.dist(after, NOSE) < 45 < math.dist(before, after)
    assert math.dist(shown_colour(page), star) > 30
    page.locator("#text-0 textarea").press("Control+A")
    page.locator("#text-0 textarea").press_sequentially("right eye")  # found while it is typed
    sync_api.expect(page.locator("#answers-0")).not_to_contain_text(
        "found at ({}, {})".format(*after), timeout=TIMEOUT
    )
    assert page.locator("#text-0 textarea").input_value() == "right eye"


def test_words_alone_are_found_and_measured_from_a_click(visitors):
    page = visitors()
    page.locator("#direction").get_by_label(WORDS, exact=True).check()
    page.locator("#another").wait_for()
    write(page, "The nose of the cat.")
    answers = wait_for_answers(page)
    assert "away" not in answers
    click(page, NOSE)
    sync_api.expect(page.locator("#answers-0")).to_contain_text("px away", timeout=TIMEOUT)
    assert page.locator("#text-0 textarea").input_value() == "The nose of the cat."


def test_several_points_another_photo_and_clear(visitors):
    page = visitors()
    for count, point in enumerate((EYE, NOSE), start=1):
        click(page, point)
        answers = wait_for_answers(page, count)
    assert len(found_points(answers)) == 2 and shown_colour(page, COLOURS[1]) is not None
    second = page.locator("#text-0 textarea").input_value()
    page.locator("#chosen").get_by_label("1", exact=True).check()
    sync_api.expect(page.locator("#text-0 textarea")).not_to_have_value(second, timeout=TIMEOUT)
    page.locator("#clear").click()
    sync_api.expect(page.locator("#answers-0")).not_to_contain_text("found", timeout=TIMEOUT)
    before = page.locator("#picture-0 img").get_attribute("src")
    page.locator("#gallery button.thumbnail-item").nth(2).click()
    sync_api.expect(page.locator("#picture-0 img")).not_to_have_attribute(
        "src", before, timeout=TIMEOUT
    )
    click(page, (320, 213), size=(640, 427))
    assert "clicked (320, 21" in wait_for_answers(page)


def test_two_checkpoints_side_by_side(visitors):
    page = visitors()
    click(page, EYE)
    wait_for_answers(page)
    assert not page.locator("#picture-1").is_visible()
    page.locator("#compare input").check()
    assert found_points(wait_for_answers(page, panel=1)) == found_points(wait_for_answers(page))
    assert page.locator("#Descriptor-1 input").input_value() == "twin"
    click(page, NOSE, panel=1)
    assert found_points(wait_for_answers(page, 2, panel=1)) == found_points(
        wait_for_answers(page, 2)
    )


def test_phone_sees_everything_within_its_width(visitors):
    page = visitors(390, 844, device_scale_factor=2, is_mobile=True, has_touch=True)
    click(page, EYE)
    wait_for_answers(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#picture-0 img", "#text-0 textarea", "#answers-0", "#gallery", "#upload"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, part


def upload(page, name, content):
    page.locator("input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
    )


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", **options)
    return buffer.getvalue()


def test_upload_is_shown_upright(visitors):
    page = visitors()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    before = page.locator("#picture-0 img").get_attribute("src")
    upload(page, "turned.jpg", jpeg(Image.open(PHOTOS[0]), exif=exif))
    sync_api.expect(page.locator("#picture-0 img")).not_to_have_attribute(
        "src", before, timeout=TIMEOUT
    )
    page.wait_for_function(
        "(i => i.complete && i.naturalHeight > i.naturalWidth)(document.querySelector('#picture-0 img'))"
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
def test_bad_upload_shows_a_message_and_the_page_goes_on(visitors, name, content, message):
    page = visitors()
    upload(page, name, content)
    assert message.lower() in toast(page).lower()
    click(page, EYE)
    wait_for_answers(page)


def test_twenty_visitors_at_once_get_their_own_answers(visitors, describe):
    points = [(40 + 90 * (i % 5), 35 + 75 * (i // 5)) for i in range(20)]
    pages = [visitors(600, 700) for _ in points]
    for page, point in zip(pages, points):
        click(page, point)
    photo = Image.open(PHOTOS[0])
    for page, point in zip(pages, points):
        answers = wait_for_answers(page)
        [clicked] = [
            tuple(map(float, match)) for match in re.findall(r"clicked \((\d+), (\d+)\)", answers)
        ]
        assert math.dist(clicked, point) <= 2
        # the page tells whole pixels of the photo, of which each is up to three of the picture
        columns, rows = (
            [shown / scale for shown in range(1024) if round(shown / scale) == value]
            for value, scale in zip(clicked, (1024 / WIDTH, round(HEIGHT * 1024 / WIDTH) / HEIGHT))
        )
        expected = {
            row["description"]
            for row in describe(photo, points=[(x, y) for x in columns for y in rows])
        }
        assert page.locator("#text-0 textarea").input_value() in expected
        assert page.locator(".toast-body").count() == 0
