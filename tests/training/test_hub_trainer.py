"""What a trainer pushes: whole repos, under a card of the run."""

import zipfile

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from hf_talking_points.files import only_writer
from hf_talking_points.training.hub_trainer import HubTrainerMixin


class HubTrainer(HubTrainerMixin, Trainer):
    """A trainer of transformers with nothing else."""

    _tag_names = ["some-method"]


@pytest.fixture
def make_trainer(make_localizer, random_image, tmp_path):
    """Makes a trainer of a tiny localizer, for one step."""

    def make(model=None, **options):
        fresh_model, processor = make_localizer()
        inputs = processor(random_image(), "red green")
        row = {name: value[0] for name, value in inputs.items()}
        row["target_points"] = torch.tensor([0.3, 0.6])
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=1,
            report_to="none",
            use_cpu=True,
            learning_rate=1.5e-4,
            **options,
        )
        return HubTrainer(
            model=fresh_model if model is None else model,
            args=arguments,
            train_dataset=[row],
            processing_class=processor,
        )

    return make


def test_the_card_of_a_run_tells_of_it(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.state.global_step = 7
    trainer.state.log_history = [
        {"loss": 2.0, "step": 1},
        {"eval_loss": 1.0, "eval_mpck": 40.0, "eval_runtime": 3.0},
        {"eval_loss": 0.5, "eval_samples_per_second": 9.0},
    ]
    trainer.create_model_card(dataset_name="someone/points", tags="mine")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.text.strip().startswith("# run\n")
    assert (
        "HubTrainer of the package hf_talking_points, on `someone/points`, 7 steps."
        in card.text
    )
    assert "| learning_rate | 0.00015 |" in card.text
    assert "| eval_loss | 0.5 |" in card.text
    assert "| eval_mpck | 40 |" in card.text
    assert "eval_runtime" not in card.text
    assert "per_second" not in card.text
    assert card.data.pipeline_tag == "keypoint-detection"
    assert card.data.library_name == "transformers"
    assert card.data.datasets == "someone/points"
    tags = ["hf_talking_points", "mine", "point-localization", "some-method"]
    assert card.data.tags == tags


def test_no_file_of_a_run_holds_its_token(make_trainer, tmp_path):
    token = "hf_" + "Zq7" * 11
    trainer = make_trainer(hub_token=token)
    for _ in range(2):  # the second save finds what the first one has changed
        trainer.save_model()
        for file in (tmp_path / "run").iterdir():
            assert token.encode() not in file.read_bytes()
        file = tmp_path / "run" / "training_args.bin"
        with zipfile.ZipFile(file) as parts:
            for part in parts.namelist():
                assert token.encode() not in parts.read(part)
        arguments = torch.load(file, weights_only=False)
        assert arguments.hub_token is None
        assert arguments.learning_rate == 1.5e-4
        assert trainer.args.hub_token == token


def test_a_second_run_in_one_folder_is_refused(make_trainer, tmp_path):
    trainer = make_trainer()
    with only_writer(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match="run is being written by process"):
            trainer.train()
    assert trainer.state.global_step == 0
    trainer.train()
    assert trainer.state.global_step == 1


def test_what_keeps_others_out_of_a_folder_is_not_pushed(hub, make_trainer):
    trainer = make_trainer(push_to_hub=True, hub_model_id="someone/run", save_steps=1)
    trainer.train()
    pushed = hub.repos["models/someone/run"]
    assert "model.safetensors" in pushed
    assert not [name for name in pushed if "lock" in name]


def test_a_run_without_evaluation_shows_no_results(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.create_model_card(model_name="fine", tags=["a", "b"])
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.text.strip().startswith("# fine\n")
    assert "last evaluation" not in card.text
    assert {"a", "b"} <= set(card.data.tags)


def test_an_adapter_of_a_local_base_is_refused_before_the_run(
    hub, make_localizer, make_trainer, tmp_path
):
    model, _ = make_localizer()
    model.save_pretrained(tmp_path / "base")
    model.config._name_or_path = str(tmp_path / "base")
    adapter = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="push it first"):
        make_trainer(adapter, push_to_hub=True, hub_model_id="someone/run")
    assert hub.repos == {}


def test_the_adapter_of_a_fresh_model_is_refused_when_it_is_pushed(
    hub, make_localizer, make_trainer
):
    model, _ = make_localizer()
    adapter = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    trainer = make_trainer(adapter)
    with pytest.raises(ValueError, match="push it first"):
        trainer.push_to_hub()
    assert hub.repos == {}
