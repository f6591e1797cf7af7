"""Teachers write what the facts say; what a model got wrong is caught and replaced."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_chat_model, save_vision_language_model
from word_examples import BESIDE, EYE, GOOD, LIGHT

from hf_talking_points.data import endpoint, fusing, teachers
from hf_talking_points.data.checks import fact_lines
from hf_talking_points.data.fusing import (
    PROMPTS,
    PointQuery,
    fault_of_answer,
    reword_prompt,
)
from hf_talking_points.data.teachers import ModelTeacher, RuleTeacher, SeededSampling
from hf_talking_points.offline import smollm2_checkpoint
from hf_talking_points.prompts import ask
from hf_talking_points.words.claims import Claim
from hf_talking_points.words.writer import STYLES, write


def make_queries(style, count=3):
    facts = (EYE, BESIDE, LIGHT)
    queries = []
    for number in range(count):
        image = Image.new("RGB", (60 + 9 * number, 40), (80 * number, 90, 20))
        query = PointQuery(image, (7, 30), facts[number % 3], style, seed=(5, number))
        queries.append(query)
    return queries


def rule_text(query, style="full"):
    return write(query.facts, style, np.random.default_rng(query.seed))


@pytest.mark.parametrize("style", STYLES)
def test_rule_teacher_writes_what_write_writes(style):
    queries = make_queries(style, 60)
    answers = RuleTeacher()(queries)
    texts = set()
    for query, answer in zip(queries, answers):
        assert set(answer) == set(RuleTeacher.columns)
        assert answer["description"] == rule_text(query, style)
        texts.add(answer["description"])
    assert len(texts) > 6


def test_a_style_that_a_teacher_does_not_write_is_an_error():
    queries = [*make_queries("full", 1), *make_queries("reworded", 1)]
    with pytest.raises(ValueError, match="query 1 .*'reworded'"):
        RuleTeacher()(queries)


def test_all_teachers_are_found_in_one_place():
    assert teachers.EndpointTeacher is endpoint.EndpointTeacher
    assert teachers.EndpointError is endpoint.EndpointError


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_tokenizer):
    """Folders of a tiny chat model and a tiny LLaVA, both untrained."""
    folder = tmp_path_factory.mktemp("teachers")
    text = save_chat_model(folder / "text", make_tokenizer)
    vision = save_vision_language_model(folder / "vision", make_tokenizer)
    return text, vision


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_vision_and_text_models_run_end_to_end(folders, temperature):
    text, vision = folders
    options = dict(dtype="float32", temperature=temperature, max_new_tokens=8)
    teacher = ModelTeacher(text, vision, batch_size=2, **options)
    columns = ("description", "rule", "context", "local", "fused", "fallback")
    assert teacher.columns == columns
    queries = make_queries("full")
    answers = teacher(queries)
    for query, answer in zip(queries, answers):
        assert tuple(answer) == columns
        assert all(isinstance(value, str) for value in answer.values())
        assert answer["rule"] == rule_text(query)
        # an untrained model writes nothing true
        assert answer["fallback"]
        assert answer["description"] == answer["rule"]
    for name in ("context", "local", "fused"):
        assert any(answer[name] for answer in answers)
    one_by_one = ModelTeacher(text, vision, batch_size=1, **options)
    assert one_by_one(queries[::-1]) == answers[::-1]
    assert teacher.info["text"] == text
    assert teacher.info["vision"] == vision
    assert json.dumps(teacher.info)


def test_sampling_follows_the_seed(folders):
    teacher = ModelTeacher(
        folders[0], dtype="float32", temperature=1.0, max_new_tokens=8
    )
    [query] = make_queries("reworded", 1)
    first, second, again = teacher([query, replace(query, seed=(5, 9)), query])
    assert first == again
    assert first["fused"] != second["fused"]
    copy = pickle.loads(pickle.dumps(teacher))
    assert copy([query]) == [first]


def test_sharing_the_examples_changes_no_answer(folders):
    teacher = ModelTeacher(folders[0], dtype="float32", batch_size=6, max_new_tokens=12)
    queries = make_queries("reworded", 12)
    answers = teacher(queries)
    for query, answer in zip(queries, answers):
        rng = np.random.default_rng(query.seed)
        prompt = reword_prompt(query.facts)
        chat = ask(PROMPTS, prompt, rng, facts=fact_lines(query.facts))
        options = dict(return_full_text=False, do_sample=False, max_new_tokens=12)
        [alone] = teacher.text_pipeline([chat], **options)
        assert alone[0]["generated_text"].strip() == answer["fused"]


def test_samples_have_the_models_distribution():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    count = 4000
    sampling = SeededSampling(range(count), temperature=2.0)
    draws = sampling(None, logits.expand(count, 4)).argmax(-1)  # (count,)
    shares = torch.bincount(draws, minlength=4) / count
    assert (shares - (logits / 2).softmax(0)).abs().max() < 0.03


def test_the_hash_follows_the_prompts(folders, tmp_path, monkeypatch):
    before = ModelTeacher(folders[0]).info["prompts"]
    for file in PROMPTS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(fusing, "PROMPTS", tmp_path)
    assert ModelTeacher(folders[0]).info["prompts"] == before
    with open(tmp_path / "reword.txt", "a") as file:
        file.write("!")
    assert ModelTeacher(folders[0]).info["prompts"] != before


@pytest.mark.slow
def test_smollm2_rewords(tmp_path):
    pytest.importorskip("gguf", reason="needs the extra 'offline'")
    folder = smollm2_checkpoint(tmp_path / "smollm2")
    assert [file.name for file in tmp_path.iterdir()] == ["smollm2"]
    teacher = ModelTeacher(folder, dtype="float32", max_new_tokens=100)
    answers = teacher(make_queries("reworded", 12))
    assert sum(not answer["fallback"] for answer in answers) >= 4
    assert len({answer["fused"] for answer in answers}) >= 6


def test_what_is_false_of_the_point_does_not_stand_for_it():
    (query, *_) = make_queries("reworded", 1)
    assert fault_of_answer(GOOD, query, (), "") == ""
    claim = Claim("color", "a black, smooth spot", "contradicted")
    checked = replace(query, false_claims=lambda text: [claim] * (text == GOOD))
    assert fault_of_answer(GOOD, checked, (), "") == (
        "false color: 'a black, smooth spot'"
    )
    assert "object dropped" in fault_of_answer("It is.", checked, (), "")
