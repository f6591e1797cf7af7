"""Supervised training: options of `Trainer` and `SFTTrainer`."""

import importlib.util

import pytest
import torch
from supervised_runs import (
    descriptor_args,
    descriptor_trainer,
    draw_photos,
    localizer_args,
    localizer_trainer,
    logged,
)
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.training_args import OptimizerNames
from transformers.utils import is_liger_kernel_available

from hf_talking_points import (
    PointDescriptorTrainer,
    PointLocalizerTrainer,
    load_points,
    paper_lora_config,
)

pytestmark = pytest.mark.slow
TRAINERS = ["PointDescriptorTrainer", "PointLocalizerTrainer"]
both_trainers = pytest.mark.parametrize("kind", TRAINERS)
only_descriptor = pytest.mark.parametrize("kind", ["PointDescriptorTrainer"])
STEPWISE = {"eval_strategy": "steps", "eval_steps": 2}


def named(options):
    """Each entry by what a user would write."""
    names = {}
    for entry in options:
        words = [f"{name}={value!r}" for name, value in entry.items()]
        names[", ".join(words)] = entry
    return names


OPTIONS = named(
    [
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"bf16": True},
        {"max_grad_norm": 0.1},
        {"weight_decay": 0.1},
        {"lr_scheduler_type": "cosine", "warmup_steps": 1},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 1},
        {"lr_scheduler_type": "reduce_lr_on_plateau", **STEPWISE},
        {"neftune_noise_alpha": 5.0},
        {"dataloader_num_workers": 1},
        {"dataloader_num_workers": 1, "dataloader_persistent_workers": True},
        {"dataloader_drop_last": True},
        {"dataloader_pin_memory": False},
        {"remove_unused_columns": True},
        {"remove_unused_columns": False},
        {"eval_on_start": True, **STEPWISE},
        {"eval_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
        {"prediction_loss_only": True, **STEPWISE},
        {"eval_accumulation_steps": 1, **STEPWISE},
        {"batch_eval_metrics": False, **STEPWISE},
        {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
        {"save_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
        {"save_strategy": "steps", "save_steps": 2, "save_only_model": True},
        {"logging_strategy": "epoch", "max_steps": -1, "num_train_epochs": 1},
        {"logging_first_step": True, "logging_steps": 2},
        {"include_num_input_tokens_seen": "all"},
        {"auto_find_batch_size": True},
        {"full_determinism": False, "data_seed": 3},
        {"torch_empty_cache_steps": 1},
        {"skip_memory_metrics": False},
        {"average_tokens_across_devices": False},
        {"torch_compile": True, "torch_compile_backend": "eager"},
        {"train_sampling_strategy": "sequential"},
    ]
)
OF_SFT = named(
    [
        {"completion_only_loss": True},
        {"completion_only_loss": False},
        {"assistant_only_loss": True},
        {"packing": True},
        {"padding_free": True},
        {"eval_packing": True},
        {"max_length": 20},
        {"max_length": 60},
        {"loss_type": "nll"},
        {"loss_type": "dft"},
        {"loss_type": "chunked_nll"},
        {"label_smoothing_factor": 0.1},
        {"shuffle_dataset": True},
        {"pad_to_multiple_of": 8},
    ]
)
# what needs a package that may be missing, or an accelerator, says so
MISSING = (ImportError, ValueError, RuntimeError, AssertionError)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = draw_photos(tmp_path_factory.mktemp("data") / "photos")
    return load_points(folder)["train"]


@pytest.fixture
def make_trainer(make_localizer, make_descriptor, rows, tmp_path):
    """Makes a trainer of a kind; options are those of its arguments."""

    def make(kind, folder=tmp_path, **options):
        if kind == "PointLocalizerTrainer":
            return localizer_trainer(make_localizer, rows, folder, **options)
        return descriptor_trainer(make_descriptor, rows, folder, **options)

    return make


def weights(trainer):
    return {
        name: value.detach().clone() for name, value in trainer.model.named_parameters()
    }


def trained(trainer):
    """Trains; losses are finite, and weights move."""
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    losses = logged(trainer, "loss") + logged(trainer, "train_loss")
    assert losses and all(0 < loss < 1e4 for loss in losses)
    return trainer


@both_trainers
@pytest.mark.parametrize("option", OPTIONS)
def test_option(kind, option, make_trainer):
    """`{option}`."""
    trainer = trained(make_trainer(kind, **OPTIONS[option]))
    if "eval_strategy" in OPTIONS[option]:
        assert logged(trainer, "eval_loss")


@only_descriptor
@pytest.mark.parametrize("option", OF_SFT)
def test_option_of_sft(kind, option, make_trainer, record_property):
    """`{option}`."""
    (name, *_) = OF_SFT[option]
    try:
        trained(make_trainer(kind, **OF_SFT[option]))
    except (ValueError, TypeError) as error:
        assert name in str(error)
        record_property("refused", f"`{type(error).__name__}: {error}`")


@pytest.mark.parametrize("kind", ["PointLocalizerTrainer"])
def test_label_smoothing(kind, make_trainer, record_property):
    """`label_smoothing_factor`, which points do not have."""
    try:
        trainer = make_trainer(kind, label_smoothing_factor=0.1)
        trainer.train()
    except ValueError as error:
        assert "label_smoothing" in str(error)
        record_property("refused", f"`{type(error).__name__}: {error}`")
    else:
        pytest.fail("label_smoothing_factor changes nothing, in silence")


@pytest.mark.parametrize("kind", ["PointLocalizerTrainer"])
@pytest.mark.parametrize("name", [entry.value for entry in OptimizerNames])
def test_optimizer(kind, name, make_trainer, record_property):
    """`optim="{name}"`."""
    options = {}
    if "galore" in name or "apollo" in name:
        options["optim_target_modules"] = "all-linear"
    try:
        trained(make_trainer(kind, optim=name, max_steps=2, **options))
    except MISSING as error:
        text = " ".join(str(error).split())
        assert text
        record_property("refused", f"`{type(error).__name__}: {text[:200]}`")


@only_descriptor
@pytest.mark.parametrize("name", ["adamw_torch_fused", "adafactor", "sgd", "lomo"])
def test_optimizer_of_descriptor(kind, name, make_trainer, refused):
    """`optim="{name}"`."""
    if name == "lomo" and importlib.util.find_spec("lomo_optim") is None:
        with refused(ImportError, "lomo"):
            make_trainer(kind, optim=name).train()
        return
    trained(make_trainer(kind, optim=name))


@both_trainers
def test_fp16(kind, make_trainer):
    """`fp16=True`."""
    trained(make_trainer(kind, fp16=True))


@both_trainers
def test_grouping_by_length(kind, make_trainer, refused):
    """`train_sampling_strategy="group_by_length"`."""
    with refused(ValueError, "group_by_length"):
        make_trainer(kind, train_sampling_strategy="group_by_length").train()


@only_descriptor
def test_activation_offloading(kind, make_trainer):
    """`activation_offloading=True`."""
    if not torch.accelerator.is_available():
        pytest.skip("moves activations from an accelerator into memory")
    trained(make_trainer(kind, activation_offloading=True))


@both_trainers
def test_liger(kind, make_trainer, refused):
    """`use_liger_kernel=True`."""
    if is_liger_kernel_available():
        trained(make_trainer(kind, use_liger_kernel=True))
        return
    with refused((ImportError, ValueError), "[Ll]iger"):
        make_trainer(kind, use_liger_kernel=True).train()


@both_trainers
def test_resuming(kind, make_trainer, tmp_path):
    """`resume_from_checkpoint`: the weights of a run without a break."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    expected = weights(trained(make_trainer(kind, **options)))
    resumed = make_trainer(kind, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


@both_trainers
@pytest.mark.parametrize("save", ["steps", "best"])
def test_best_model(kind, save, make_trainer):
    """`load_best_model_at_end` and `EarlyStoppingCallback`, `save_strategy="{save}"`."""
    trainer = make_trainer(
        kind,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy=save,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    best = min(logged(trainer, "eval_loss"))
    assert trainer.state.best_metric == pytest.approx(best)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best, rel=1e-3)


@both_trainers
def test_best_model_by_judged_metric(kind, make_trainer, checkpoint):
    """`metric_for_best_model="eval_mpck"`."""
    options = {}
    if kind == "PointDescriptorTrainer":
        options["localizer"] = checkpoint("localizer, heatmap")
    trainer = make_trainer(
        kind,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_mpck",
        greater_is_better=True,
        **options,
    )
    trainer.train()
    assert trainer.state.best_metric == max(logged(trainer, "eval_mpck"))


@both_trainers
def test_callbacks(kind, make_trainer):
    """Callbacks: every event, with every log."""
    events = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            events.append("train")

        def on_step_end(self, args, state, control, **kwargs):
            events.append("step")

        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            assert "eval_loss" in metrics
            events.append("evaluate")

        def on_log(self, args, state, control, logs=None, **kwargs):
            events.append("log")

    trainer = make_trainer(kind, eval_strategy="steps", eval_steps=2)
    trainer.add_callback(Watch())
    trained(trainer)
    assert events.count("step") == 4 and events.count("evaluate") == 2
    assert {"train", "log"} <= set(events)


@both_trainers
@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_report_to(kind, tracker, make_trainer, refused):
    """`report_to="{tracker}"`."""
    if importlib.util.find_spec(tracker) is not None:
        pytest.skip("is installed: its own service would be needed")
    with refused(RuntimeError, tracker):
        make_trainer(kind, report_to=tracker).train()


@both_trainers
def test_lora(kind, checkpoint, rows, tmp_path):
    """`peft_config`: adapters alone are trained and saved."""
    descriptor = kind == "PointDescriptorTrainer"
    trainer_class = PointDescriptorTrainer if descriptor else PointLocalizerTrainer
    arguments = descriptor_args if descriptor else localizer_args
    trainer = trainer_class(
        model=checkpoint("descriptor" if descriptor else "localizer, heatmap"),
        args=arguments(tmp_path),
        train_dataset=rows,
        peft_config=paper_lora_config(r=4),
    )
    trained(trainer).save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@both_trainers
def test_prediction(kind, make_trainer, rows):
    """`predict` of rows."""
    output = make_trainer(kind).predict(rows)
    assert "test_loss" in output.metrics


@both_trainers
def test_push(kind, make_trainer, hub):
    """`push_to_hub=True` with `hub_strategy="end"`."""
    options = {"push_to_hub": True, "hub_model_id": "someone/trained"}
    trained(make_trainer(kind, **options))
