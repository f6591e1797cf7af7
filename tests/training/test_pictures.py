"""Pictures of a run's completions, and where they are shown."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from script_runs import run_program
from transformers import DefaultFlowCallback
from transformers.integrations import TensorBoardCallback, TrackioCallback

from hf_talking_points import LocalizerReward
from hf_talking_points.training.pictures import report_picture


@pytest.fixture(scope="module")
def localizer(make_localizer):
    return make_localizer(head="mlp")


def pictures(folder):
    return sorted(file.name for file in (folder / "_pictures").glob("*.png"))


def test_completions_are_logged_and_drawn(make_trainer, localizer, tmp_path):
    pandas = pytest.importorskip("pandas")
    reward = LocalizerReward(*localizer)
    make_trainer(reward, log_completions=True, picture_steps=2, max_steps=3).train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert len(table) == 12
    columns = {"completion", "localizer", "localizer_found", "point", "advantage"}
    assert columns <= set(table.columns)
    assert pictures(tmp_path) == ["round_trip_00000.png", "round_trip_00002.png"]


def test_completions_are_drawn_without_a_localizer(make_trainer, tmp_path):
    make_trainer(picture_steps=1, max_steps=1).train()
    assert pictures(tmp_path) == ["round_trip_00000.png"]


def test_what_no_localizer_can_take_is_drawn_without_a_cross(
    make_trainer, localizer, tmp_path, monkeypatch
):
    _, processor = localizer
    monkeypatch.setattr(processor, "accepts", lambda text: False)
    make_trainer(LocalizerReward(*localizer), picture_steps=1, max_steps=1).train()
    assert pictures(tmp_path) == ["round_trip_00000.png"]


def test_a_picture_goes_where_the_run_is_reported_to(random_image, monkeypatch):
    shown = []
    trackio = SimpleNamespace(Image=lambda picture: picture, log=shown.append)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    tensorboard = object.__new__(TensorBoardCallback)
    tensorboard.tb_writer = SimpleNamespace(
        add_image=lambda *args, **options: shown.append(args)
    )
    picture = random_image(0)
    callbacks = [tensorboard, object.__new__(TrackioCallback), DefaultFlowCallback()]
    report_picture(picture, callbacks, step=7)
    (title, pixels, step), in_trackio = shown
    assert (title, step) == ("round_trip", 7)
    assert np.array_equal(pixels, picture)
    assert in_trackio == {"round_trip": picture}


def test_pictures_reach_tensorboard(make_trainer, localizer, tmp_path, monkeypatch):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    board = str(tmp_path / "board")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", board)
    make_trainer(
        LocalizerReward(*localizer), picture_steps=1, report_to="tensorboard"
    ).train()
    events = accumulator.EventAccumulator(board).Reload()
    assert [event.step for event in events.Images("round_trip")] == [0, 1]
    assert "train/localizer/distance" in events.Tags()["scalars"]


TRACKIO_RUN = """
import sys
from datasets import Dataset
from grpo_runs import build
from hf_talking_points import LocalizerReward

checkpoint, data, localizer, folder = sys.argv[1:]
trainer = build(
    checkpoint,
    Dataset.load_from_disk(data),
    folder,
    LocalizerReward(localizer),
    picture_steps=1,
    report_to="trackio",
)
trainer.train()
"""


def test_pictures_reach_trackio(
    policy_checkpoint, four_points, localizer, tmp_path, monkeypatch
):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    four_points.save_to_disk(tmp_path / "data")
    for part in localizer:
        part.save_pretrained(tmp_path / "localizer")
    arguments = [policy_checkpoint, tmp_path / "data", tmp_path / "localizer", tmp_path]
    ran = run_program(TRACKIO_RUN, *arguments)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(list((tmp_path / "trackio" / "media").rglob("*.png"))) == 2
