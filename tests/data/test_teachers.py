"""Teachers write what the facts say; what a model got wrong is caught and replaced."""

import base64
import io
import json
import pickle
import re
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from hf_talking_points.data import teachers
from hf_talking_points.data.teachers import (
    EndpointError,
    EndpointTeacher,
    ModelTeacher,
    PointQuery,
    RuleTeacher,
    check,
    fact_lines,
    fading_crop,
    read_prompt,
    ring_point,
)
from hf_talking_points.data.wording import (
    HORIZONTAL,
    PLANS,
    STYLES,
    SURROUNDINGS_PLANS,
    VERTICAL,
    PointFacts,
    write,
)
from hf_talking_points.offline import smollm2_checkpoint

EYE = PointFacts(
    object="dog",
    size="small",
    part="left eye",
    in_image="bottom and far left",
    on_object="very top and right",
    spot="a black, smooth spot",
)
LIGHT = replace(EYE, object="car", part="front left light", in_part="middle and center")
BESIDE = PointFacts(in_image="top and center", spot="a green, lightly textured spot")
GOOD = (
    "Look for a small dog in the bottom and far left of the image. A black, smooth spot is on its left eye at the very top and right of "
    "the dog."
)


def queries(style, count=3):
    facts = (EYE, BESIDE, LIGHT)
    return [
        PointQuery(
            Image.new("RGB", (60 + 9 * i, 40), (80 * i, 90, 20)),
            (7, 30),
            facts[i % 3],
            style,
            seed=(5, i),
        )
        for i in range(count)
    ]


def every_text(facts, style):
    plans = (PLANS if facts.object else SURROUNDINGS_PLANS)[style]
    return {write(facts, style, np.random.default_rng(seed)) for seed in range(40 * len(plans))}


# --- rules


@pytest.mark.parametrize("style", STYLES)
def test_no_style_carries_coordinates_or_loses_the_names(style):
    for facts in (EYE, LIGHT, BESIDE):
        for text in every_text(facts, style):
            assert not re.search(
                r"\d|[{}]|\b(quarter|third|half|percent|pixels?|grid|rows?|columns?|coordinates?)\b",
                text,
            )
            assert facts.object is None or facts.object in text.lower()
            assert facts.object is None or (facts.part in text.lower()) == (
                style not in ("no_part", "caption")
            )


def test_no_position_says_everything_but_positions():
    words = set(" ".join(HORIZONTAL + VERTICAL).split()) | {"upper", "lower", "corner", "side"}
    for facts in (EYE, LIGHT, BESIDE):
        texts = every_text(facts, "no_position")
        assert len(texts) >= 4
        for text in texts:
            own = text.lower().replace(
                facts.part or "-", ""
            )  # left and right in a part's name are the object's own
            assert not set(re.findall(r"\w+", own)) & words, text
            assert facts.spot in text.lower() and (facts.size or "") in text.lower()


def test_colloquial_names_every_position_with_its_frame():
    for facts in (EYE, LIGHT, BESIDE):
        texts = every_text(facts, "colloquial")
        assert len(texts) >= 4
        for text in texts:
            assert (
                re.search(f"{facts.in_image} of the (photo|picture)", text) and facts.spot in text
            )
            if facts.object:
                assert f"{facts.on_object} of the {facts.object}" in text and facts.size in text
            assert not facts.in_part or f"{facts.in_part} within the {facts.part}" in text


@pytest.mark.parametrize("style", STYLES)
def test_rule_teacher_writes_what_write_writes_and_names_the_plan(style):
    asked = queries(style, 60)
    answers, shapes = RuleTeacher()(asked), {}
    for query, answer in zip(asked, answers):
        assert set(answer) == set(RuleTeacher.columns)
        assert answer["description"] == write(query.facts, style, np.random.default_rng(query.seed))
        if query.facts is EYE:
            shapes.setdefault(answer["plan"], set()).add(answer["description"])
    assert len(shapes) > 3 and all(len(texts) == 1 for texts in shapes.values())
    assert len(set().union(*shapes.values())) == len(shapes)


def test_a_style_that_a_teacher_does_not_write_is_an_error():
    with pytest.raises(ValueError, match="query 1 .*'reworded'"):
        RuleTeacher()([*queries("full", 1), *queries("reworded", 1)])


# --- check


def test_rule_based_texts_pass_the_check():
    for facts in (EYE, LIGHT, BESIDE):
        for text in every_text(facts, "full"):
            assert (
                check(
                    text,
                    facts,
                    {"dog", "car", "left_eye", "right_eye", "front_left_light", "wheel"}
                    - {facts.object},
                )
                is None
            ), text


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "empty"),
        (GOOD[:-1], "unfinished"),
        (GOOD + " It", "unfinished"),
        (GOOD + " Yes." * 100, "longer"),
        (GOOD + "\nfacts", "prompt echoed"),
        ("facts: " + GOOD, "prompt echoed"),
        (GOOD + " It is at (12, 40).", "digits"),
        (GOOD + " See the third row.", "digits or coordinates: 'row'"),
        (GOOD.replace("dog", "cat"), "object dropped: 'dog'"),
        (GOOD.replace("left eye", "right eye"), "part dropped: 'left eye'"),
        (GOOD + " The right eye is meant.", "invented: 'right'"),
        (
            GOOD.replace("bottom and far left", "bottom and left"),
            "position dropped: 'bottom and far left of the image'",
        ),
        (GOOD.replace("far left of the image", "far left"), "position dropped"),
        (
            GOOD.replace("very top and right of the dog", "very top and right of the image"),
            "position dropped",
        ),
        (GOOD.replace("bottom and", "very bottom and"), "invented: 'very'"),
        (GOOD + " It is in the very top and right of the dog.", "position repeated"),
        (GOOD + " It is near the corner.", "invented: 'corner'"),
        (GOOD.replace("a small dog", "a large dog"), "invented: 'large'"),
        (GOOD.replace("black, smooth", "dark"), "spot dropped"),
        (GOOD + " The fur is brown.", "invented: 'brown'"),
        (GOOD + " Its nose is wet.", "invented: 'nose'"),
        (GOOD + " Two cats watch.", "invented: 'cats'"),
        (GOOD.replace("Look for", "The point is"), "mistaken"),
        (GOOD.replace("A black, smooth spot", "The dog"), "mistaken: 'dog is on its'"),
        (
            GOOD.replace("A black, smooth spot is", "It is black, smooth spot"),
            "mistaken: 'is black, smooth spot'",
        ),
        (
            "The left eye of it is in the bottom and far left of the image: a black, smooth spot at the very top and right of the dog.",
            "left eye",
        ),
    ],
)
def test_check_gives_the_reason(text, reason):
    assert reason in (check(text, EYE, {"cat", "nose", "left_eye", "dog"}) or "nothing found")


def test_check_of_a_point_beside_all_objects():
    assert (
        check(
            "What we see in the top and center of the image is a green, lightly textured spot.",
            BESIDE,
        )
        is None
    )
    assert "mistaken" in check(
        "The top and center of the image is a green, lightly textured spot.", BESIDE
    )
    assert "invented: 'dog'" in check(
        "Look for a green, lightly textured spot in the top and center of the image, on a dog.",
        BESIDE,
        {"dog"},
    )


def test_check_accepts_a_true_text():
    assert check(GOOD, EYE, {"cat", "nose", "left_eye", "dog", "eye"}) is None
    assert check(GOOD.replace("bottom and far left", "far left and bottom"), EYE) is None
    assert check(GOOD.replace("of the image", "of the photo"), EYE) is None


def test_check_lets_a_text_tell_what_a_model_saw_but_no_other_position():
    fused = (
        "A small white dog in the bottom and far left of the image lies beside a red sofa. The point is on its black left eye at the very "
        "top and right of the dog."
    )
    assert "spot dropped" in check(fused, EYE)
    assert check(fused, EYE, seen="A white dog beside a red sofa.") is None
    assert "invented: 'beside'" in check(fused, EYE, seen="A white dog and a red sofa.")
    assert "invented: 'red'" in check(fused, EYE, seen="A white dog beside a sofa.")
    assert "invented: 'upper'" in check(fused[:-1] + ", the upper one.", EYE, seen=fused + " upper")


# --- what a vision model is shown


def test_the_ring_leaves_the_point_free():
    image = Image.new("RGB", (200, 100), "green")
    marked = np.asarray(ring_point(image, (50, 40)))
    assert (marked[38:43, 48:53] == (0, 128, 0)).all() and np.asarray(image).max() == 128
    red = np.argwhere((marked == (255, 0, 0)).all(-1)) + 0.5
    assert len(red) > 20 and np.abs(red.mean(0) - (40, 50)).max() < 1
    assert ring_point(Image.new("RGB", (3000, 1500)), (2999, 1)).size == (
        teachers.LONGEST_SIDE,
        teachers.LONGEST_SIDE // 2,
    )


def test_the_crop_fades_with_the_distance_and_is_grey_outside():
    crop = np.asarray(
        fading_crop(Image.new("RGB", (100, 60), "white"), (2.5, 20.5), sigma=0.1)
    ).astype(float)
    assert crop.shape == (61, 61, 3)
    middle = crop[30, :, 0]
    assert middle[30] == 255 and middle[60] < 130
    assert middle[40] == pytest.approx(127 + 128 * np.exp(-0.5), abs=1.5)  # one sigma away
    assert (
        (middle[:28] == 127).all() and (crop[:10] == 127).all() and crop[10:].max() == 255
    )  # beyond the left edge, and above the top


# --- models


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_tokenizer):
    """Folders of a tiny chat model and a tiny LLaVA, both untrained."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(model_max_length=4096)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    template = (
        "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
        "{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endif %}\n{% endfor %}assistant:"
    )
    tokenizer.chat_template = template
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    LlamaForCausalLM(text).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    llava = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(llava).save_pretrained(folder / "vision")
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=template,
    ).save_pretrained(folder / "vision")
    return str(folder / "text"), str(folder / "vision")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_vision_and_text_models_run_end_to_end(folders, temperature):
    text, vision = folders
    options = dict(dtype="float32", temperature=temperature, max_new_tokens=8)
    teacher = ModelTeacher(text, vision, batch_size=2, **options)
    asked = queries("full")
    answers = teacher(asked)
    for query, answer in zip(asked, answers):
        assert (
            tuple(answer)
            == teacher.columns
            == ("description", "rule", "context", "local", "fused", "fallback")
        )
        assert all(isinstance(value, str) for value in answer.values())
        assert answer["rule"] == write(query.facts, "full", np.random.default_rng(query.seed))
        assert (
            answer["fallback"] and answer["description"] == answer["rule"]
        )  # an untrained model writes nothing true
    assert all(any(answer[name] for answer in answers) for name in ("context", "local", "fused"))
    assert ModelTeacher(text, vision, batch_size=1, **options)(asked[::-1]) == answers[::-1]
    assert (
        teacher.info["text"] == text
        and teacher.info["vision"] == vision
        and json.dumps(teacher.info)
    )


def test_sampling_follows_the_seed(folders):
    teacher = ModelTeacher(folders[0], dtype="float32", temperature=1.0, max_new_tokens=8)
    [query] = queries("reworded", 1)
    one, other, again = teacher([query, replace(query, seed=(5, 9)), query])
    assert one == again and one["fused"] != other["fused"]
    assert pickle.loads(pickle.dumps(teacher))([query]) == [one]


def test_sharing_the_examples_changes_no_answer(folders):
    teacher = ModelTeacher(folders[0], dtype="float32", batch_size=6, max_new_tokens=12)
    asked = queries("reworded", 12)
    together = [answer["fused"] for answer in teacher(asked)]
    for query, text in zip(asked, together):
        chat = teachers.ask(
            teachers.reword_prompt(query.facts),
            np.random.default_rng(query.seed),
            facts=teachers.fact_lines(query.facts),
        )
        [alone] = teacher.pipelines["text"](
            [chat], return_full_text=False, do_sample=False, max_new_tokens=12
        )
        assert alone[0]["generated_text"].strip() == text


def test_samples_have_the_models_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draws = teachers.SeededSampling(range(4000), temperature=2.0)(
        None, logits.expand(4000, 4)
    ).argmax(-1)
    assert (torch.bincount(draws, minlength=4) / 4000 - (logits / 2).softmax(0)).abs().max() < 0.03


def test_the_hash_follows_the_prompts(folders, tmp_path, monkeypatch):
    before = ModelTeacher(folders[0]).info["prompts"]
    for file in teachers.PROMPTS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(teachers, "PROMPTS", tmp_path)
    assert ModelTeacher(folders[0]).info["prompts"] == before
    with open(tmp_path / "reword.txt", "a") as file:
        file.write("!")
    assert ModelTeacher(folders[0]).info["prompts"] != before


def test_worked_examples_of_the_prompts_keep_to_the_rules():
    for name in ("reword", "reword_within", "reword_surroundings"):
        messages = read_prompt(name)
        assert [m["role"] for m in messages] == [
            "system",
            *["user", "assistant"] * (len(messages) // 2 - 1),
            "user",
        ]
        for question, answer in zip(messages[1:-1:2], messages[2:-1:2]):
            *named, spot = question["content"].split("\n")
            in_image = re.search("in the (.*) of the image", named[0])[1]
            facts = PointFacts(in_image=in_image, spot=spot)
            if len(named) == 2:
                size, thing = re.match(r"a (\S+) (\S+) in the", named[0]).groups()
                part, on_object, in_part = re.match(
                    r"its (.*) at the (.*) of the \w+(?:, in the (.*) within the .*)?$", named[1]
                ).groups()
                facts = PointFacts(in_image, spot, thing, size, part, on_object, in_part)
            assert fact_lines(facts) == question["content"]
            assert check(answer["content"], facts) is None, answer["content"]


# --- endpoint


@pytest.fixture
def server():
    """A local endpoint: `server.answers` are (status, body, headers), the last one again and again; `server.requests` what came in."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(endpoint.requests)
                endpoint.requests.append((self.path, dict(self.headers), body, time.monotonic()))
            status, content, headers = endpoint.answers[min(number, len(endpoint.answers) - 1)]
            content = content(body) if callable(content) else content
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    lock, endpoint = threading.Lock(), ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.requests, endpoint.answers = [], []
    endpoint.url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    threading.Thread(target=endpoint.serve_forever, args=(0.02,), daemon=True).start()
    yield endpoint
    endpoint.shutdown()
    endpoint.server_close()


def says(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


def test_an_endpoint_rewords(server):
    server.answers = [says(GOOD)]
    teacher = EndpointTeacher(server.url, "llama", max_new_tokens=77)
    [right, wrong] = teacher([queries("reworded")[0], queries("reworded")[2]])
    assert right["description"] == right["fused"] == GOOD and right["fallback"] == ""
    assert (
        wrong["fused"] == GOOD
        and wrong["description"] == wrong["rule"]
        and "object dropped" in wrong["fallback"]
    )
    paths, headers, bodies, _ = zip(*server.requests)
    assert set(paths) == {"/v1/chat/completions"} and "Authorization" not in headers[0]
    assert {(b["model"], b["temperature"], b["max_tokens"]) for b in bodies} == {("llama", 0.0, 77)}
    assert {b["messages"][-1]["content"] for b in bodies} == {fact_lines(EYE), fact_lines(LIGHT)}
    assert pickle.loads(pickle.dumps(teacher))([queries("reworded")[0]]) == [right]


def test_an_endpoint_is_shown_the_photo_as_data_url(server):
    def answer(body):
        content = body["messages"][-1]["content"]
        if isinstance(content, str):
            assert (
                body["model"] == "llama"
                and "scene: seen by llava" in content
                and "detail: seen by llava" in content
            )
            return says(GOOD.replace("small dog", "small dog, seen by llava,"))[1]
        image = Image.open(
            io.BytesIO(
                base64.b64decode(
                    content[0]["image_url"]["url"].removeprefix("data:image/png;base64,")
                )
            )
        )
        sizes.append(image.size)
        return says(f"seen by {body['model']}")[1]

    sizes, server.answers = [], [(200, answer, {})]
    [row] = EndpointTeacher(server.url, "llama", "llava")(queries("full", 1))
    assert (
        row["context"] == row["local"] == "seen by llava"
        and not row["fallback"]
        and "llava" in row["description"]
    )
    assert sorted(sizes) == [(29, 29), (60, 40)]  # the crop and the whole photo


def test_an_endpoint_that_is_busy_is_asked_again(server):
    server.answers = [
        (429, b"slow down", {"Retry-After": "1"}),
        (503, b"", {}),
        (200, b"<html>", {}),
        (200, {"choices": []}, {}),
        says(GOOD),
    ]
    [row] = EndpointTeacher(server.url, "llama", backoff=0.01)(queries("reworded", 1))
    times = [when for *_, when in server.requests]
    assert row["description"] == GOOD and len(times) == 5
    assert times[1] - times[0] >= 1 and times[2] - times[1] < 0.5


@pytest.mark.parametrize(
    "answer, asked, said",
    [
        ((500, b"broken", {}), 3, "status 500: broken; given up after 3"),
        ((200, b"<html>", {}), 3, "no chat completion: <html>"),
    ],
)
def test_an_endpoint_that_goes_on_failing_is_an_error(server, answer, asked, said):
    server.answers = [answer]
    with pytest.raises(EndpointError, match=re.escape(said)):
        EndpointTeacher(server.url, "llama", retries=2, backoff=0.01)(queries("reworded", 1))
    assert len(server.requests) == asked


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
        EndpointTeacher(server.url, "llama", backoff=0.01)(queries("reworded", 1))
    assert len(server.requests) == 1


def test_no_endpoint_is_an_error(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(EndpointError, match="ConnectionError.*given up after 2 attempts"):
        EndpointTeacher(server.url, "llama", retries=1, backoff=0.01)(queries("reworded", 1))


def test_an_endpoint_that_has_nothing_to_say_falls_back(server):
    server.answers = [says(None)]
    [row] = EndpointTeacher(server.url, "llama")(queries("reworded", 1))
    assert row["fallback"] == "empty" and row["description"] == row["rule"]


def test_the_rate_limit_holds_for_all_threads(server):
    server.answers = [says(GOOD)]
    EndpointTeacher(server.url, "llama", requests_per_minute=600, concurrent=4)(
        queries("reworded", 6)
    )
    times = sorted(when for *_, when in server.requests)
    assert len(times) == 6 and times[-1] - times[0] >= 0.45


def test_the_key_comes_from_the_environment_and_stays_there(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret")
    server.answers = [says(GOOD), (401, b"bad key s3cret", {})]
    teacher = EndpointTeacher(server.url, "llama", api_key_env="MY_KEY")
    teacher(queries("reworded", 1))
    assert server.requests[0][1]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(vars(teacher)) and b"s3cret" not in pickle.dumps(teacher)
    with pytest.raises(EndpointError) as error:
        teacher(queries("reworded", 1))
    assert "s3cret" not in str(error.value) and "bad key ***" in str(error.value)
    monkeypatch.setenv("MY_KEY", "s3cret\n")
    with pytest.raises(ValueError, match="MY_KEY") as error:
        EndpointTeacher(server.url, "llama", api_key_env="MY_KEY")
    assert "s3cret" not in str(error.value)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ValueError, match="MY_KEY"):
        EndpointTeacher(server.url, "llama", api_key_env="MY_KEY")


@pytest.mark.parametrize("url", ["localhost:8000", "http://me:pw@host/v1", "http://host/v1?key=1"])
def test_a_bad_base_url_is_an_error(url):
    with pytest.raises(ValueError, match="base_url"):
        EndpointTeacher(url, "llama")


# --- SmolLM2


def test_a_converted_smollm2_is_used_as_it_is_and_nothing_is_overwritten(tmp_path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "config.json").write_text("{}")
    assert smollm2_checkpoint(tmp_path / "done") == str(tmp_path / "done")
    assert [f.name for f in (tmp_path / "done").iterdir()] == ["config.json"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other"):
        smollm2_checkpoint(tmp_path / "other")


@pytest.mark.slow
def test_smollm2_rewords(tmp_path):
    pytest.importorskip("gguf", reason="needs the extra 'offline'")
    folder = smollm2_checkpoint(tmp_path / "smollm2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["smollm2"]
    answers = ModelTeacher(folder, dtype="float32", max_new_tokens=100)(queries("reworded", 12))
    assert sum(not answer["fallback"] for answer in answers) >= 4
    assert len({answer["fused"] for answer in answers}) >= 6
