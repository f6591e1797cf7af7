"""The scripts that train both models."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from example_scripts import load_example
from safetensors.torch import load_file
from supervised_runs import SPLIT_NAMES, draw_photos
from transformers import AutoModel, EvalPrediction, Trainer

ROOT = Path(__file__).parent.parent.parent
KINDS = ["localizer", "descriptor"]
SCRIPTS = {
    "localizer": "train_localizer",
    "descriptor": "train_descriptor",
    "points": "pretrain_points",
}
TINY = {"layers": 1, "image_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    assert all(SPLIT_NAMES.values())
    return draw_photos(tmp_path_factory.mktemp("data") / "photos")


def write_config(kind, folder, output, **fields):
    """The YAML file of an example, for two steps on the drawn photos."""
    options = yaml.safe_load((ROOT / f"examples/{SCRIPTS[kind]}.yaml").read_text())
    for of_other_runs in ("backbone", "localizer"):
        options.pop(of_other_runs, None)
    options.update(
        max_steps=2,
        save_steps=1,
        eval_steps=2,
        views_per_photo=2,
        data_dir=[str(folder)],
        feature_cache=str(output / "cache"),
        output_dir=str(output / "run"),
        half_precision_dir=str(output / "half"),
    )
    output.mkdir(exist_ok=True)
    config = output / "run.yaml"
    config.write_text(yaml.safe_dump({**options, **fields}))
    return config


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_examples_run_from_a_clone(folder, tmp_path, kind):
    config = write_config(kind, folder, tmp_path)
    # without telemetry, whose thread would still be at work when the program ends
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, f"examples/{SCRIPTS[kind]}.py", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert ran.returncode == 0, f"exit code {ran.returncode}: {ran.stderr[-3000:]}"
    assert AutoModel.from_pretrained(tmp_path / "half").dtype == torch.float32


@pytest.fixture
def run_example(monkeypatch):
    """Runs an example in this process."""

    def run(kind, config):
        script = str(ROOT / f"examples/{SCRIPTS[kind]}.py")
        monkeypatch.setattr(sys, "argv", [script, "--config", str(config)])
        runpy.run_path(script, run_name="__main__")

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_command_gives_the_same_fresh_model(
    run_example, folder, tmp_path, kind
):
    models = []
    for name in "ab":
        torch.manual_seed(ord(name))  # what was drawn before does not matter
        output = tmp_path / name
        options = {"eval_strategy": "no", "warmup_steps": 0}
        run_example(kind, write_config(kind, folder, output, **TINY, **options))
        models.append(load_file(output / "run" / "model.safetensors"))
    first, second = models
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapted_fresh_model_is_saved_whole(run_example, folder, tmp_path, kind):
    options = {"lora_rank": 2, "max_steps": 1}
    if kind == "descriptor":
        options["heads_weight"] = 0.0
    run_example(kind, write_config(kind, folder, tmp_path, **TINY, **options))
    assert not (tmp_path / "run" / "adapter_config.json").exists()
    for name in ("run", "half"):
        assert (
            AutoModel.from_pretrained(tmp_path / name).config.model_type
            == f"point_{kind}"
        )


def test_words_begin_with_what_the_points_were_taught(run_example, folder, tmp_path):
    taught = tmp_path / "points" / "run"
    options = {"styles": ["full"], "warmup_steps": 0, "freeze": "backbone", **TINY}
    run_example("points", write_config("points", folder, taught.parent, **options))
    options = {"model_name_or_path": str(taught), "learning_rate": 0.0, "max_steps": 1}
    run_example("descriptor", write_config("descriptor", folder, tmp_path, **options))
    before = load_file(taught / "model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    heads = load_file(taught / "auxiliary_heads.safetensors")
    kept = load_file(tmp_path / "run" / "checkpoint-1" / "auxiliary_heads.safetensors")
    for name, value in heads.items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("part", ["the backbone", "what follows it"])
def test_the_backbone_has_a_learning_rate_of_its_own(
    run_example, folder, tmp_path, part
):
    still = {"learning_rate": 0.0, "backbone_learning_rate": 0.0}
    name = "learning_rate" if part == "what follows it" else "backbone_learning_rate"
    runs = []
    for number, rates in enumerate([still, {**still, name: 1e-3}]):
        output = tmp_path / str(number)
        options = {"warmup_steps": 0, "feature_cache": None, "max_steps": 1}
        options |= {"freeze": "nothing", **rates}
        config = write_config("points", folder, output, **TINY, **options)
        run_example("points", config)
        runs.append(load_file(output / "run" / "model.safetensors"))
    before, after = runs
    moved = {"the backbone": False, "what follows it": False}
    for name, value in before.items():
        if not torch.equal(value, after[name]):
            moved["the backbone" if ".encoder." in name else "what follows it"] = True
    assert moved == {key: key == part for key in moved}


def test_features_of_a_backbone_that_learns_are_not_kept(run_example, folder, tmp_path):
    config = write_config("points", folder, tmp_path, **TINY, freeze="nothing")
    with pytest.raises(ValueError, match="feature_cache keeps what a frozen backbone"):
        run_example("points", config)


def test_what_the_heads_read_is_scored_where_it_is_known():
    script = load_example("pretrain_points")
    rng = np.random.default_rng(0)
    photos, points = 3, 4
    targets = np.full((photos, points, 17), np.nan)
    targets[..., :3] = rng.normal(size=(photos, points, 3))
    targets[..., 3:7] = 7, 4, script.IGNORED, 5  # color name, pattern, part, category
    targets[0, :2, 5] = [1, 2]
    targets[..., 7:9] = 0.35  # x and y
    color_names = np.full((photos, points), 7)
    patterns = np.full((photos, points), 4)
    patterns[0] = 3
    parts = np.ones((photos, points))
    categories = np.full((photos, points), 5)
    categories[0] = 6
    steps = np.full((photos, points, 8), 3)
    steps[..., 1] = 2
    read = (targets[..., :3], color_names, patterns, parts, categories, steps)
    metrics = script.compute_metrics(EvalPrediction(read, targets))
    assert metrics == {
        "r2_L": 1.0,
        "r2_a": 1.0,
        "r2_b": 1.0,
        "color_name": 1.0,
        "pattern": pytest.approx(2 / 3),
        "part": 0.5,
        "category": pytest.approx(2 / 3),
        "step": 0.5,
    }


class TrainingBegins(Exception):
    """A script makes its trainer."""


def test_loading_options_reach_the_policy(folder, tmp_path, monkeypatch):
    script = load_example("run_grpo")

    def trainer(**options):
        raise TrainingBegins(options)

    monkeypatch.setattr(script, "PointGRPOTrainer", trainer)
    words = ["run_grpo.py", "--data_dir", str(folder), "--output_dir", str(tmp_path)]
    words += ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]
    words += ["--dtype", "bfloat16", "--attn_implementation", "eager"]
    words += ["--model_revision", "v2", "--load_in_4bit", "true"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(TrainingBegins) as begun:
        script.main()
    options = begun.value.args[0]["args"].model_init_kwargs
    assert options.pop("quantization_config").load_in_4bit
    assert options == {
        "revision": "v2",
        "dtype": "bfloat16",
        "attn_implementation": "eager",
    }


@pytest.mark.parametrize(
    "options, error",
    [
        (
            {"lora_rank": 2, "half_precision_dir": "half"},
            "lora_rank gives an adapter.*choose one",
        ),
        ({"unknown_name_penalty": 0.3}, "unknown_name_penalty needs a false_claim_pen"),
        ({"right_name_reward": 0.3}, "right_name_reward needs a false_claim_penalty"),
        ({"nameless_share": 1.0}, "nameless_share must be between 0 and 1, got 1.0"),
    ],
)
def test_options_of_grpo_that_do_not_fit_are_said(options, error):
    script = load_example("run_grpo")
    with pytest.raises(ValueError, match=error):
        script.ScriptArguments(**options)


def test_grpo_takes_the_share_of_nameless_points_that_is_asked():
    script = load_example("run_grpo")
    objects = ["dog"] * 30 + [None] * 10
    parts = ["nose"] * 20 + [None] * 20  # ten of an object without part
    rows = Dataset.from_dict({"object": objects, "part": parts, "row": range(40)})
    fewer = script.with_fewer_names(rows, nameless_share=0.8)
    assert list(fewer["part"]) == ["nose"] * 5 + [None] * 20
    assert list(fewer["row"]) == sorted(set(fewer["row"]))
    again = script.with_fewer_names(rows, nameless_share=0.8)
    assert list(again["row"]) == list(fewer["row"])
    with pytest.raises(ValueError, match="0.2 is less than the share of 20 in 40"):
        script.with_fewer_names(rows, nameless_share=0.2)
    with pytest.raises(ValueError, match="but all 20 points have object and part"):
        script.with_fewer_names(rows.take(20), nameless_share=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_writes_no_copy(
    run_example, folder, tmp_path, kind, monkeypatch
):
    monkeypatch.setattr(Trainer, "is_world_process_zero", lambda trainer: False)
    options = {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no"}
    run_example(kind, write_config(kind, folder, tmp_path, **TINY, **options))
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_a_train_photo_is_said(run_example, tmp_path, kind):
    folder = draw_photos(tmp_path / "photos", SPLIT_NAMES["test"])
    with pytest.raises(ValueError, match="train_dataset is missing: there is no photo"):
        run_example(kind, write_config(kind, folder, tmp_path))
