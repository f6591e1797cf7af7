"""An endpoint is asked what it should be, asked again where that may help, and never told on."""

import base64
import contextlib
import io
import json
import pickle
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image
from word_examples import EYE, GOOD, LIGHT

from hf_talking_points.data.checks import fact_lines
from hf_talking_points.data.endpoint import EndpointError, EndpointTeacher, Turns
from hf_talking_points.data.fusing import PointQuery


def query_of(facts, style="reworded", seed=5):
    image = Image.new("RGB", (60, 40), (0, 90, 20))
    return PointQuery(image, (7, 30), facts, style, seed)


class Handler(BaseHTTPRequestHandler):
    """Gives the answers of its server one after the other, the last one again and again."""

    def do_POST(self):
        endpoint = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with endpoint.lock:
            number = len(endpoint.requests)
            received = (self.path, dict(self.headers), body, time.monotonic())
            endpoint.requests.append(received)
        status, content, headers = endpoint.answers[
            min(number, len(endpoint.answers) - 1)
        ]
        if callable(content):
            content = content(body)
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # given up by the other side
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A local endpoint: `server.answers` are (status, body, headers), `server.requests` what came in."""
    endpoint = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.lock = threading.Lock()
    endpoint.requests = []
    endpoint.answers = []
    endpoint.url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    threading.Thread(target=endpoint.serve_forever, args=(0.02,), daemon=True).start()
    yield endpoint
    endpoint.shutdown()
    endpoint.server_close()


def completion(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def says(text):
    return 200, completion(text), {}


def times_of(server):
    return sorted(when for *_, when in server.requests)


def test_an_endpoint_rewords(server):
    server.answers = [says(GOOD)]
    teacher = EndpointTeacher(server.url, "llama", max_new_tokens=77)
    [right, wrong] = teacher([query_of(EYE), query_of(LIGHT)])
    assert right["description"] == right["fused"] == GOOD
    assert right["fallback"] == ""
    assert wrong["fused"] == GOOD
    assert wrong["description"] == wrong["rule"]
    assert "object dropped" in wrong["fallback"]
    assert len(server.requests) == 2
    questions = set()
    for path, headers, body, _ in server.requests:
        assert path == "/v1/chat/completions"
        assert "Authorization" not in headers
        assert body["model"] == "llama"
        assert body["temperature"] == 0.0
        assert body["max_tokens"] == 77
        assert "seed" not in body
        questions.add(body["messages"][-1]["content"])
    assert questions == {fact_lines(EYE), fact_lines(LIGHT)}
    copy = pickle.loads(pickle.dumps(teacher))
    assert copy([query_of(EYE)]) == [right]


def test_half_a_character_of_an_answer_is_left_out(server):
    server.answers = [(200, json.dumps(completion(GOOD + " \ud83d")).encode(), {})]
    teacher = EndpointTeacher(server.url, "llama")
    assert teacher.complete("llama", [], 0) == GOOD + " "


@pytest.mark.parametrize(
    "answer, attempts",
    [
        ((200, b'{"choices": []}', {"Content-Encoding": "gzip"}), 3),
        ((200, b"\xff\xff junk", {"Content-Encoding": "deflate"}), 3),
        ((500, b"<html>", {"Content-Encoding": "gzip"}), 3),
        ((200, b"[" * 100_000, {}), 3),
        ((200, b'{"choices":' * 90_000, {}), 3),
        ((200, b" " * 2**22, {}), 3),
        ((500, b" " * 2**22, {}), 3),
        ((302, b"", {"Location": "http://[::1"}), 1),
        ((302, b"", {"Location": "http://127.0.0.1:1/"}), 1),
        ((429, b"", {"Retry-After": "\xb2"}), 3),
        ((429, b"", {"Retry-After": "soon"}), 3),
        ((429, b"", {"Retry-After": "9" * 400}), 3),
        ((429, b"", {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 3),
        ((429, b"", {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}), 1),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_answers_of_every_unusual_kind_end_in_one_error(server, answer, attempts):
    server.answers = [answer] * attempts
    teacher = EndpointTeacher(server.url, "llama", retries=2, backoff=0.01, timeout=5)
    with pytest.raises(EndpointError, match=re.escape(server.url)):
        teacher.complete("llama", [], 0)
    assert len(server.requests) == attempts


def test_sampling_sends_the_seed_of_the_query(server):
    server.answers = [says(GOOD)]
    teacher = EndpointTeacher(server.url, "llama", temperature=0.7, concurrent=1)
    teacher([query_of(EYE, seed=5), query_of(EYE, seed=6), query_of(EYE, seed=5)])
    first, second, again = (body for _, _, body, _ in server.requests)
    assert first == again
    assert first["seed"] != second["seed"]
    assert first["temperature"] == 0.7


def test_an_endpoint_is_shown_the_photo_as_data_url(server):
    sizes = []

    def answer(body):
        content = body["messages"][-1]["content"]
        if isinstance(content, str):
            assert body["model"] == "llama"
            assert "scene: seen by llava" in content
            assert "detail: seen by llava" in content
            return completion(GOOD.replace("small dog", "small dog, seen by llava,"))
        url = content[0]["image_url"]["url"]
        file = base64.b64decode(url.removeprefix("data:image/png;base64,"))
        sizes.append(Image.open(io.BytesIO(file)).size)
        return completion(f"seen by {body['model']}")

    server.answers = [(200, answer, {})]
    [row] = EndpointTeacher(server.url, "llama", "llava")([query_of(EYE, "full")])
    assert row["context"] == row["local"] == "seen by llava"
    assert row["fallback"] == ""
    assert "llava" in row["description"]
    assert sorted(sizes) == [(29, 29), (60, 40)]  # the crop and the whole photo


def test_an_endpoint_that_is_busy_is_asked_again(server):
    server.answers = [
        (429, b"slow down", {"Retry-After": "1"}),
        (503, b"", {}),
        (200, b"<html>", {}),
        (200, {"choices": []}, {}),
        (200, {"choices": [{"message": {"content": 3}}]}, {}),
        says(GOOD),
    ]
    [row] = EndpointTeacher(server.url, "llama", backoff=0.01)([query_of(EYE)])
    assert row["description"] == GOOD
    times = times_of(server)
    assert len(times) == 6
    assert times[1] - times[0] >= 1
    assert times[2] - times[1] < 0.5


def test_each_attempt_waits_twice_as_long(server):
    server.answers = [(500, b"", {}), (500, b"", {}), says(GOOD)]
    EndpointTeacher(server.url, "llama", backoff=0.2)([query_of(EYE)])
    first, second, third = times_of(server)
    assert second - first >= 0.2
    assert third - second >= 0.4


@pytest.mark.parametrize(
    "answer, message",
    [
        ((500, b"broken", {}), "status 500: broken; given up after 3 attempts"),
        ((200, b"<html>", {}), "no chat completion: <html>; given up after 3 attempts"),
    ],
)
def test_an_endpoint_that_goes_on_failing_is_an_error(server, answer, message):
    server.answers = [answer]
    teacher = EndpointTeacher(server.url, "llama", retries=2, backoff=0.01)
    with pytest.raises(EndpointError, match=re.escape(message)):
        teacher([query_of(EYE)])
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        (401, b"who are you", {}),
        (302, b"", {"Location": "http://example.org"}),
        (429, b"", {"Retry-After": "9000"}),
    ],
)
def test_an_endpoint_that_refuses_is_not_asked_again(server, answer):
    server.answers = [answer]
    with pytest.raises(EndpointError, match=str(answer[0])):
        EndpointTeacher(server.url, "llama", backoff=0.01)([query_of(EYE)])
    assert len(server.requests) == 1


def test_no_endpoint_is_an_error(server):
    server.shutdown()
    server.server_close()
    teacher = EndpointTeacher(server.url, "llama", retries=1, backoff=0.01)
    with pytest.raises(
        EndpointError, match="ConnectionError.*given up after 2 attempts"
    ):
        teacher([query_of(EYE)])


def test_an_endpoint_that_has_nothing_to_say_falls_back(server):
    server.answers = [says(None)]
    [row] = EndpointTeacher(server.url, "llama")([query_of(EYE)])
    assert row["fallback"] == "empty"
    assert row["description"] == row["rule"]


def test_the_rate_limit_holds_for_all_threads(server):
    server.answers = [says(GOOD)]
    teacher = EndpointTeacher(
        server.url, "llama", requests_per_minute=600, concurrent=4
    )
    teacher([query_of(EYE, seed=seed) for seed in range(6)])
    times = times_of(server)
    assert len(times) == 6
    assert times[-1] - times[0] >= 0.45


def test_turns_of_a_copy_begin_anew():
    turns = Turns(100.0)
    turns.wait()
    copy = pickle.loads(pickle.dumps(turns))
    assert copy.gap == 100.0
    start = time.monotonic()
    copy.wait()
    assert time.monotonic() - start < 10


def test_the_key_comes_from_the_environment_and_stays_there(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    server.answers = [says(GOOD), (401, b"bad key s3cret", {})]
    teacher = EndpointTeacher(server.url, "llama", api_key_env="MY_KEY")
    teacher([query_of(EYE)])
    headers = server.requests[0][1]
    assert headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(vars(teacher))
    assert "s3cret" not in json.dumps(teacher.info)
    assert b"s3cret" not in pickle.dumps(teacher)
    with pytest.raises(EndpointError) as error:
        teacher([query_of(EYE)])
    assert "s3cret" not in str(error.value)
    assert "bad key ***" in str(error.value)


def test_a_key_that_cannot_be_one_is_an_error(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret\n")
    with pytest.raises(ValueError, match="MY_KEY") as error:
        EndpointTeacher("http://host/v1", "llama", api_key_env="MY_KEY")
    assert "s3cret" not in str(error.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ValueError, match="MY_KEY"):
        EndpointTeacher("http://host/v1", "llama", api_key_env="MY_KEY")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://me:pw@host/v1", "http://host/v1?key=1"]
)
def test_a_bad_base_url_is_an_error(url):
    with pytest.raises(ValueError, match="base_url"):
        EndpointTeacher(url, "llama")
