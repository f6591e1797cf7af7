"""Fingerprints of checkpoints, half precision, and base models that others can load."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, TrainingArguments

from hf_talking_points import checkpoints
from hf_talking_points.checkpoints import (
    check_base,
    last_checkpoint,
    model_version,
    save_half_precision,
)


@pytest.fixture
def folder(tmp_path):
    """Something like a checkpoint."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "point_localizer"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 8192)
    return folder


def test_a_copy_has_the_same_version(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert model_version(copy) == model_version(str(folder))


def change_last_byte(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")


def rename_file(folder):
    (folder / "config.json").rename(folder / "config_old.json")


def add_file(folder):
    (folder / "generation_config.json").write_text("{}")


@pytest.mark.parametrize("change", [change_last_byte, rename_file, add_file])
def test_a_changed_folder_has_another_version(folder, change):
    before = model_version(folder)
    change(folder)
    assert model_version(folder) != before


def test_subfolders_do_not_count(folder):
    before = model_version(folder)
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "optimizer.pt").write_text("x")
    assert model_version(folder) == before


def test_the_version_of_a_model_of_the_hub_is_its_commit(hub, make_localizer):
    model, _ = make_localizer()
    for _ in range(2):
        commit = model.push_to_hub("someone/localizer")
        assert model_version("someone/localizer") == commit.oid


def test_the_version_of_no_model_is_an_error_that_names_it(hub):
    with pytest.raises(OSError, match="someone/nothing"):
        model_version("someone/nothing")


def test_half_precision_is_half_the_size(make_localizer, tmp_path):
    model, processor = make_localizer(head="heatmap")
    save_half_precision(model, processor, tmp_path)
    for name, value in load_file(tmp_path / "model.safetensors").items():
        if value.is_floating_point():
            assert value.dtype == torch.float16, name


def test_half_precision_computes_in_full(make_localizer, random_image, tmp_path):
    model, processor = make_localizer(head="heatmap")
    rounded = {}
    for name, value in model.state_dict().items():
        rounded[name] = (
            value.half().float() if value.is_floating_point() else value.clone()
        )
    save_half_precision(model, processor, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    for name, value in loaded.state_dict().items():
        assert value.dtype == rounded[name].dtype
        assert torch.equal(value, rounded[name])
    outputs = loaded(**processor(random_image(), "red"))
    assert outputs.points.dtype == torch.float32
    config = json.loads((tmp_path / "config.json").read_text())
    for section in (config, config["text_config"], config["vision_config"]):
        assert section["dtype"] == "float32"


@pytest.mark.parametrize("value", [1e6, float("nan"), float("-inf")])
def test_weights_that_do_not_fit_into_half_precision_are_an_error(
    make_localizer, tmp_path, value
):
    model, processor = make_localizer()
    torch.nn.init.constant_(model.point_head[1].weight, value)
    with pytest.raises(ValueError, match="point_head.1.weight"):
        save_half_precision(model, processor, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_base_model_on_the_hub_can_be_loaded_by_others():
    check_base("someone/base")


@pytest.mark.parametrize(
    "base",
    [
        None,
        "",
        ".",
        "/home/jane/base",
        "./runs/base",
        "../base",
        "runs/base/checkpoint-100",
        "C:\\runs\\base",
        "~/runs/base",
    ],
)
def test_a_base_model_of_a_machine_cannot(base):
    with pytest.raises(ValueError, match="push it first"):
        check_base(base)


def test_a_run_resumes_from_its_last_checkpoint(tmp_path):
    args = TrainingArguments(str(tmp_path / "run"), use_cpu=True)
    assert last_checkpoint(args) is None
    (tmp_path / "run").mkdir()
    assert last_checkpoint(args) is None
    for step in (9, 10):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir()
        (tmp_path / "run" / f"checkpoint-{step}" / "trainer_state.json").write_text(
            "{}"
        )
    (tmp_path / "run" / "checkpoint-best").mkdir()
    assert last_checkpoint(args) == str(tmp_path / "run" / "checkpoint-10")


@pytest.mark.parametrize("state", [None, "", '{"global_step": 1'])
def test_a_checkpoint_that_was_not_written_to_its_end_is_left_out(
    tmp_path, caplog, state
):
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    for step in (3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    if state is not None:
        (tmp_path / "checkpoint-4" / "trainer_state.json").write_text(state)
    assert last_checkpoint(args) is None
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(args) == str(tmp_path / "checkpoint-3")
    assert "checkpoint-4 was not written to its end" in caplog.text


@pytest.mark.parametrize("found", [None, "run/checkpoint-3"])
def test_other_processes_resume_from_what_the_main_one_found(
    monkeypatch, tmp_path, found
):
    (tmp_path / "checkpoint-4").mkdir()  # made meanwhile
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    monkeypatch.setattr(TrainingArguments, "process_index", 1)
    monkeypatch.setattr(checkpoints, "broadcast_object_list", lambda objects: [found])
    assert last_checkpoint(args) == found
