"""Supervised training of tiny models on a folder of drawn photos."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from huggingface_hub import ModelCard
from peft import LoraConfig, PromptTuningConfig
from safetensors.torch import load, load_file
from supervised_runs import (
    SPLIT_NAMES,
    TRAINING,
    descriptor_args,
    descriptor_trainer,
    draw_photos,
    localizer_args,
    localizer_trainer,
    logged,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import (
    AutoModel,
    EarlyStoppingCallback,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    pipeline,
)
from trl import SFTConfig

from hf_talking_points import PointDescriptorTrainer, PointLocalizerTrainer
from hf_talking_points.data.builder import BuildOptions, build_dataset
from hf_talking_points.data.rows import load_points
from hf_talking_points.data.sources import read_objects
from hf_talking_points.training.collators import DescriptorCollator
from hf_talking_points.training.lora import paper_lora_config
from hf_talking_points.training.triplet_trainer import without_casts

KINDS = ["localizer", "descriptor"]
CONFIDENT = {"head": "heatmap", "calibrated_confidence": True}
VOCABULARY = ("embed_tokens.weight", "lm_head.weight")  # also of words that no text has


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def dataset(folder):
    return load_points(folder)


@pytest.fixture(scope="module")
def rows(dataset):
    return dataset["train"]


@pytest.fixture
def make_trainer(make_localizer, make_descriptor):
    """Makes a trainer of one of the kinds."""

    def make(kind, *args, **options):
        if kind == "localizer":
            return localizer_trainer(make_localizer, *args, **options)
        return descriptor_trainer(make_descriptor, *args, **options)

    return make


@pytest.fixture
def make_model(make_localizer, make_descriptor):
    """Makes a tiny model of one of the kinds, and its processor."""
    makers = {"localizer": make_localizer, "descriptor": make_descriptor}
    return lambda kind, **fields: makers[kind](**fields)


@pytest.fixture
def make_checkpoint(make_model, tmp_path):
    """Saves a tiny model of one of the kinds; with its processor, unless told otherwise."""

    def make(kind, with_processor=True, **fields):
        folder = tmp_path / f"tiny-{kind}"
        model, processor = make_model(kind, **fields)
        model.save_pretrained(folder)
        if with_processor:
            processor.save_pretrained(folder)
        return str(folder)

    return make


TRAINERS = {"localizer": PointLocalizerTrainer, "descriptor": PointDescriptorTrainer}
MAKE_ARGS = {"localizer": localizer_args, "descriptor": descriptor_args}


def trained_values(model):
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def unmoved(model, before):
    """Names of the parameters that are as before, but for those of words that may not have come."""
    names = []
    for name, parameter in model.named_parameters():
        is_still = name in before and torch.equal(parameter, before[name])
        if is_still and not name.endswith(VOCABULARY):
            names.append(name)
    return names


@pytest.mark.parametrize("kind", KINDS)
def test_the_half_precision_of_deepspeed_moves_no_point(
    make_trainer, rows, tmp_path, monkeypatch, kind
):
    trainer = make_trainer(kind, rows, tmp_path)
    [batch, *_] = trainer.get_train_dataloader()
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    monkeypatch.setattr(type(trainer.accelerator.state), "deepspeed_plugin", plugin)
    prepared = trainer._prepare_inputs(batch)
    assert prepared["pixel_values"].dtype == torch.bfloat16
    name = "input_points" if kind == "descriptor" else "target_points"
    assert torch.equal(prepared[name], batch[name])
    assert prepared[name].dtype == torch.float32


@pytest.mark.parametrize("version", [1, 2])
def test_the_half_precision_of_fsdp_moves_no_point(
    make_trainer, rows, tmp_path, monkeypatch, version
):
    trainer = make_trainer("descriptor", rows, tmp_path)
    plugin = FullyShardedDataParallelPlugin(fsdp_version=version)
    plugin.set_mixed_precision("bf16")
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    monkeypatch.setitem(vars(trainer.accelerator.state), "fsdp_plugin", plugin)
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", lambda _: None)
    trainer.create_accelerator_and_postprocess()
    policy = plugin.mixed_precision_policy
    assert policy.param_dtype == torch.bfloat16
    assert not policy.cast_forward_inputs
    assert version == 2 or not policy.cast_root_forward_inputs
    assert without_casts(None) is None


@pytest.fixture
def one_process(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", KINDS)
def test_models_train_in_half_precision_although_fsdp_casts_nothing(
    make_model, random_image, one_process, kind
):
    model, processor = make_model(kind)
    seen = []
    if kind == "descriptor":
        inputs = processor(random_image(), points=[(70.3, 33.3)])
        inputs["labels"] = inputs["input_ids"]
        model.model.point_encoder.register_forward_pre_hook(
            lambda module, args: seen.append(args[0])
        )
    else:
        inputs = processor(random_image(), text="red")
        inputs["target_points"] = torch.tensor([[0.7323, 0.5058]])
    expected = model(**inputs).loss
    mesh = init_device_mesh("cpu", (1,))
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    fully_shard(model, mesh=mesh, mp_policy=without_casts(half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0.05)
    for points in seen:
        assert torch.equal(points, inputs["input_points"])


@pytest.mark.parametrize("head", ["mlp", "heatmap"])
def test_localizer_learns_and_reports_mpck(make_localizer, rows, tmp_path, head):
    trainer = localizer_trainer(
        make_localizer,
        rows,
        tmp_path,
        eval_rows=rows,
        model_fields={"head": head},
        max_steps=30,
        learning_rate=5e-3,
        max_eval_photos=4,
    )
    before = trained_values(trainer.model)
    trainer.train()
    # the last stage is coarser than the image tokens, and only the heat map looks at it
    still = [name for name in unmoved(trainer.model, before) if "stages.3." not in name]
    assert still == []
    assert head == "mlp" or unmoved(trainer.model, before) == []
    metrics = trainer.evaluate()
    losses = logged(trainer, "loss")
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert metrics["eval_n"] == 16
    assert (
        metrics["eval_mpck"] == (metrics["eval_pck@0.1"] + metrics["eval_pck@0.2"]) / 2
    )


def test_the_confidence_in_texts_of_other_photos_is_learned(
    make_localizer, rows, tmp_path
):
    trainer = localizer_trainer(
        make_localizer,
        rows,
        tmp_path,
        model_fields=CONFIDENT,
        foreign_texts=2,
        max_steps=30,
        learning_rate=5e-3,
    )
    before = trained_values(trainer.model)
    assert "confidence_head.linear.weight" in before
    trainer.train()
    assert unmoved(trainer.model, before) == []
    losses = logged(trainer, "loss")
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])


def test_texts_of_other_photos_ask_for_a_low_confidence(make_localizer, rows, tmp_path):
    trainer = localizer_trainer(
        make_localizer,
        rows,
        tmp_path,
        model_fields=CONFIDENT,
        foreign_texts=3,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.train()
    model.zero_grad()
    trainer.compute_loss(model, dict(batch)).backward()
    # a step along the gradient lowers the confidence, of which three in four should be low
    assert float(model.confidence_head.linear.bias.grad) > 0


def test_foreign_texts_need_a_confidence_that_can_learn(make_localizer, rows, tmp_path):
    with pytest.raises(ValueError, match="calibrate_localizer.py first"):
        localizer_trainer(make_localizer, rows, tmp_path, foreign_texts=1)
    with pytest.raises(ValueError, match="less than points_per_image=4, got 4"):
        localizer_args(tmp_path, foreign_texts=4)


def test_evaluation_distances_are_parts_of_the_photo(make_localizer, rows, tmp_path):
    """The photos are 4:3 on a square canvas: a quarter of their height is 3/16 of the canvas."""
    trainer = localizer_trainer(make_localizer, rows, tmp_path)
    row = trainer.eval_dataset[0]
    moved = row["points"] + torch.tensor([0.0, 0.1875])
    labels = (row["points"][None].numpy(), row["scale"][None, None].numpy())
    prediction = EvalPrediction(predictions=moved[None].numpy(), label_ids=labels)
    scores = trainer.localization_metrics(prediction)
    assert scores["mean_distance"] == pytest.approx(0.25, abs=1e-4)


def test_descriptor_learns_with_heads_and_saves_without_them(
    make_descriptor, rows, tmp_path
):
    options = {"heads_weight": 1.0, "max_steps": 30, "learning_rate": 5e-3}
    trainer = descriptor_trainer(make_descriptor, rows, tmp_path, **options)
    before = trained_values(trainer.model)
    heads_before = trained_values(trainer.heads)
    modules_before = [name for name, _ in trainer.model.named_modules()]
    trainer.train()
    losses = logged(trainer, "loss")
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    heads_losses = logged(trainer, "heads_loss")
    assert np.mean(heads_losses[-5:]) < 0.8 * np.mean(heads_losses[:3])
    assert unmoved(trainer.model, before) == []
    assert unmoved(trainer.heads, heads_before) == []

    trainer.save_model()
    assert [name for name, _ in trainer.model.named_modules()] == modules_before
    assert not (tmp_path / "auxiliary_heads.safetensors").exists()
    assert set(load_file(tmp_path / "model.safetensors")) <= set(
        trainer.model.state_dict()
    )
    assert AutoModel.from_pretrained(tmp_path).can_generate()


def test_gradients_of_heads_are_those_of_one_step(make_descriptor, rows, tmp_path):
    """Neither left over from the step before, nor left out of clipping."""
    norms = {}
    for max_grad_norm in (1e-6, 1e6):
        trainer = descriptor_trainer(
            make_descriptor,
            rows,
            tmp_path,
            heads_weight=1.0,
            max_steps=3,
            learning_rate=0.0,
            max_grad_norm=max_grad_norm,
            gradient_accumulation_steps=2,
        )
        seen = []
        trainer.optimizer = trainer.create_optimizer()
        trainer.optimizer.register_step_pre_hook(
            lambda *_, heads=trainer.heads, seen=seen: seen.append(gradient_norm(heads))
        )
        trainer.train()
        assert all(parameter.grad is None for parameter in trainer.heads.parameters())
        norms[max_grad_norm] = seen
    assert len(norms[1e6]) == 3
    assert max(norms[1e-6]) <= 1e-6
    first, *_, last = norms[1e6]
    assert last < 2 * first


def gradient_norm(module):
    gradients = [parameter.grad for parameter in module.parameters()]
    return float(torch.nn.utils.get_total_norm(gradients))


def test_a_loss_function_of_ones_own_sees_all_logits(make_descriptor, rows, tmp_path):
    trainer = descriptor_trainer(make_descriptor, rows, tmp_path, max_steps=1)
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append((outputs.logits.shape[:2], labels.shape))
        return 0 * outputs.logits.sum()

    trainer.compute_loss_func = loss
    trainer.train()
    assert seen
    assert all(logits == labels for logits, labels in seen)


def test_predicted_masks_are_supervised_by_the_boxes(make_descriptor, rows, tmp_path):
    trainer = descriptor_trainer(
        make_descriptor,
        rows,
        tmp_path,
        model_fields={"point_mask": "predicted"},
        max_steps=25,
        learning_rate=5e-3,
    )
    before = trained_values(trainer.model)
    trainer.train()
    losses = logged(trainer, "mask_loss")
    assert np.mean(losses[-5:]) < 0.9 * losses[0]
    assert unmoved(trainer.model, before) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_ends_like_an_undisturbed_one(make_trainer, rows, tmp_path, kind):
    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    if kind == "descriptor":
        options["heads_weight"] = 1.0
    undisturbed = make_trainer(kind, rows, tmp_path / "whole", **options)
    undisturbed.train()
    resumed = make_trainer(kind, rows, tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    torch.testing.assert_close(
        resumed.model.state_dict(), undisturbed.model.state_dict()
    )
    if kind == "descriptor":
        torch.testing.assert_close(
            resumed.heads.state_dict(), undisturbed.heads.state_dict()
        )


def test_heads_are_not_resumed_from_a_run_without_them(make_descriptor, rows, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    descriptor_trainer(make_descriptor, rows, tmp_path, **options).train()
    trainer = descriptor_trainer(
        make_descriptor, rows, tmp_path, heads_weight=1.0, **options
    )
    with pytest.raises(ValueError, match="holds no auxiliary_heads.safetensors"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_run(make_trainer, rows, tmp_path, kind):
    options = {"heads_weight": 1.0} if kind == "descriptor" else {}
    runs = []
    for name in "ab":
        torch.manual_seed(ord(name))  # what was drawn before does not matter
        trainer = make_trainer(kind, rows, tmp_path / name, **options)
        trainer.train()
        runs.append(logged(trainer, "loss"))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_trains_like_the_dataset_in_its_order(
    make_trainer, rows, tmp_path, kind
):
    losses = []
    for train_rows in (rows, rows.to_iterable_dataset()):
        options = {"train_sampling_strategy": "sequential", "views_per_photo": 2}
        trainer = make_trainer(kind, train_rows, tmp_path, eval_rows=rows, **options)
        trainer.train()
        losses.append(logged(trainer, "loss"))
    assert len(losses[0]) == 4
    assert losses[0] == losses[1]


def test_a_stream_does_not_tell_heads_its_names(make_descriptor, rows, tmp_path):
    with pytest.raises(ValueError, match="which a stream does not tell"):
        stream = rows.to_iterable_dataset()
        descriptor_trainer(
            make_descriptor, stream, tmp_path, eval_rows=rows, heads_weight=1.0
        )


def test_lora_trains_adapters_alone(make_descriptor, rows, tmp_path):
    config = paper_lora_config(2, 4, modules_to_save=["point_projector"])
    trainer = descriptor_trainer(make_descriptor, rows, tmp_path, peft_config=config)
    before = trained_values(trainer.model)
    assert before
    for name in before:
        assert "modules_to_save" in name or (
            "lora_" in name and "language_model" in name
        )
    trainer.train()
    assert unmoved(trainer.model, before) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_of_a_fresh_model_becomes_part_of_it(
    make_model, rows, tmp_path, kind
):
    model, processor = make_model(kind)
    # the language model's own layers, so that merging changes weights
    config = LoraConfig(r=2, target_modules=r".*language_model.*\.(q|v)_proj")
    trainer = TRAINERS[kind](
        model=model,
        args=MAKE_ARGS[kind](tmp_path, learning_rate=1e-2),
        train_dataset=rows,
        processing_class=processor,
        peft_config=config,
    )
    trainer.train()
    with pytest.raises(ValueError, match="call merge_fresh_adapter"):
        trainer.save_model()
    adapted = trainer.get_test_dataloader(rows)
    batch = next(iter(adapted))
    trainer.model.eval()
    with torch.no_grad():
        expected, _ = trainer.compute_loss(
            trainer.model, dict(batch), return_outputs=True
        )
    trainer.merge_fresh_adapter()
    trainer.save_model()
    assert not (tmp_path / "adapter_config.json").exists()
    merged = type(model).from_pretrained(tmp_path)
    fresh = TRAINERS[kind](
        model=merged,
        args=MAKE_ARGS[kind](tmp_path),
        train_dataset=rows,
        processing_class=processor,
    )
    fresh.model.eval()
    with torch.no_grad():
        found, _ = fresh.compute_loss(fresh.model, dict(batch), return_outputs=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_of_a_checkpoint_stays_an_adapter(
    make_checkpoint, rows, tmp_path, kind
):
    trainer = TRAINERS[kind](
        model=make_checkpoint(kind),
        args=MAKE_ARGS[kind](tmp_path / "run", max_steps=1),
        train_dataset=rows,
        peft_config=paper_lora_config(2, 4),
    )
    trainer.train()
    trainer.merge_fresh_adapter()
    trainer.save_model()
    assert (tmp_path / "run" / "adapter_config.json").is_file()


def test_gradient_checkpointing_and_bfloat16_train(make_descriptor, rows, tmp_path):
    trainer = descriptor_trainer(
        make_descriptor,
        rows,
        tmp_path,
        bf16=True,
        gradient_checkpointing=True,
        heads_weight=0.1,
        max_steps=25,
        learning_rate=5e-3,
    )
    trainer.train()
    losses = logged(trainer, "loss")
    assert np.mean(losses[-5:]) < 0.7 * losses[0]


def test_heads_and_adapters_exclude_each_other(make_descriptor, rows, tmp_path):
    config = paper_lora_config(2, 4)
    with pytest.raises(ValueError, match="leave one of the two out"):
        descriptor_trainer(
            make_descriptor, rows, tmp_path, heads_weight=1.0, peft_config=config
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_cached_frozen_backbone_trains(make_model, rows, tmp_path, kind):
    model, processor = make_model(kind)
    model.freeze_backbone()
    trainer = TRAINERS[kind](
        model=model,
        args=MAKE_ARGS[kind](tmp_path / "run", feature_cache=str(tmp_path / "cache")),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
    )
    before = trained_values(trainer.model)
    trainer.train()
    assert unmoved(trainer.model, before) == []
    assert not any("backbone" in name for name in before)
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    assert len(list((tmp_path / "cache").iterdir())) == 1  # the same photos


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_arguments_stay_as_they_are(
    make_trainer, make_model, rows, tmp_path, kind
):
    plain_class = {"localizer": TrainingArguments, "descriptor": SFTConfig}[kind]
    plain_options = {
        name: value for name, value in TRAINING.items() if name != "points_per_image"
    }
    plain = plain_class(output_dir=str(tmp_path), **plain_options)
    for args in (MAKE_ARGS[kind](tmp_path), plain):
        model, processor = make_model(kind)
        before = {name: repr(value) for name, value in vars(args).items()}
        stream = rows.to_iterable_dataset()
        trainer = TRAINERS[kind](
            model, args, processor, train_dataset=stream, eval_dataset=rows
        )
        trainer.train()
        trainer.evaluate()
        after = {name: repr(vars(args)[name]) for name in before}
        assert after == before


@pytest.mark.parametrize("kind", KINDS)
def test_plain_arguments_and_none_train_with_the_defaults(
    make_checkpoint, rows, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)
    checkpoint = make_checkpoint(kind)
    trainer = TRAINERS[kind](checkpoint, train_dataset=rows)
    assert trainer.args.output_dir == f"tiny-{kind}-trained"
    assert trainer.train_dataset[0]["points"].shape == (8, 2)
    options = {
        "max_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
    }
    args = TrainingArguments(str(tmp_path / "run"), **options)
    trainer = TRAINERS[kind](checkpoint, args, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_processor_is_the_checkpoints(
    make_checkpoint, make_model, rows, tmp_path, kind
):
    checkpoint = make_checkpoint(kind)
    args = MAKE_ARGS[kind](tmp_path / "run")
    trainer = TRAINERS[kind](checkpoint, args, train_dataset=rows)
    _, processor = make_model(kind)
    assert trainer.processing_class.to_dict() == processor.to_dict()
    trainer.save_model()
    assert (tmp_path / "run" / "processor_config.json").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_processor_that_nothing_tells_is_asked_for(
    make_checkpoint, make_model, rows, tmp_path, kind
):
    args = MAKE_ARGS[kind](tmp_path / "run")
    fresh, _ = make_model(kind)
    bare = make_checkpoint(kind, with_processor=False)
    for model in (fresh, bare):
        with pytest.raises(ValueError, match="processing_class is missing"):
            TRAINERS[kind](model, args, train_dataset=rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_the_other_kind_is_refused(make_model, rows, tmp_path, kind):
    [other] = set(KINDS) - {kind}
    model, processor = make_model(other)
    with pytest.raises(
        ValueError, match=f"must be a point_{kind}, got a point_{other}"
    ):
        TRAINERS[kind](model, MAKE_ARGS[kind](tmp_path), processor, train_dataset=rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_dataset_trains(make_trainer, folder, tmp_path, kind):
    options = BuildOptions(license="cc0-1.0", styles=("full", "terse"))
    built = build_dataset([partial(read_objects, folder)], tmp_path / "points", options)
    trainer = make_trainer(
        kind,
        built["train"],
        tmp_path / "run",
        eval_rows=built["validation"],
        model_fields={"head": "heatmap"} if kind == "localizer" else None,
        styles=None,
        surroundings=0.0,
    )
    before = trained_values(trainer.model)
    trainer.train()
    assert unmoved(trainer.model, before) == []
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    texts = set(built["train"]["description"])
    for row in trainer.train_dataset:
        assert set(row["descriptions"]) <= texts


UPDATE = {
    "max_steps": 1,
    "max_grad_norm": 0.0,
    "points_per_image": 3,
    "gradient_checkpointing": False,
    "styles": ["full", "terse"],
    "surroundings": 0.3,
}


class KeptGradients(TrainerCallback):
    """Keeps the gradients of the last update."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients = {
            name: parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }


@pytest.mark.parametrize(
    ("kind", "fields", "options"),
    [
        ("localizer", {"head": "heatmap"}, {}),
        ("descriptor", {"point_mask": "predicted"}, {"heads_weight": 1.0}),
        ("descriptor", {}, {"heads_weight": 1.0, "label_smoothing_factor": 0.1}),
    ],
)
def test_an_update_does_not_depend_on_how_its_photos_are_cut_into_batches(
    make_trainer, rows, tmp_path, kind, fields, options
):
    five = rows.select(range(3 * 5))
    found = []
    for photos, steps in [(5, 1), (2, 3)]:
        trainer = make_trainer(
            kind,
            five,
            tmp_path,
            model_fields=fields,
            per_device_train_batch_size=photos,
            gradient_accumulation_steps=steps,
            **UPDATE,
            **options,
        )
        kept = KeptGradients()
        trainer.add_callback(kept)
        trainer.train()
        found.append((kept.gradients, trainer.state.log_history[0]))
    (whole, logs), (pieces, other_logs) = found
    assert set(whole) == set(pieces)
    for name, gradient in whole.items():
        torch.testing.assert_close(pieces[name], gradient, atol=1e-4, rtol=1e-3)
    for name in {"loss", "heads_loss", "mask_loss"} & set(logs):
        assert other_logs[name] == pytest.approx(logs[name], rel=1e-3)


def test_label_smoothing_leaves_the_heads_their_gradients(
    make_descriptor, rows, tmp_path
):
    """Its second pass, which has none, is for metrics alone."""
    found = []
    for weight in (0.0, 1.0):
        trainer = descriptor_trainer(
            make_descriptor,
            rows,
            tmp_path,
            label_smoothing_factor=0.1,
            heads_weight=weight,
            **UPDATE,
        )
        kept = KeptGradients()
        trainer.add_callback(kept)
        trainer.train()
        found.append(kept.gradients)
    without, with_heads = found
    changed = []
    for name, gradient in without.items():
        if not torch.allclose(gradient, with_heads[name], rtol=1e-3):
            changed.append(name)
    assert any("point_encoder" in name for name in changed)


def test_metrics_carry_the_names_of_dataset_and_style(
    make_localizer, dataset, tmp_path
):
    rows = dataset["validation"]
    named = {"near": rows, "far": rows}
    options = {
        "eval_styles": ["full", "terse"],
        "eval_strategy": "steps",
        "eval_steps": 4,
    }
    trainer = localizer_trainer(
        make_localizer, dataset["train"], tmp_path, rows, **options
    )
    trainer.train()
    assert (
        len(logged(trainer, "eval_full_mpck"))
        == len(logged(trainer, "eval_terse_mpck"))
        == 1
    )
    assert {"eval_full_mpck", "eval_terse_mpck"} <= set(trainer.evaluate())
    metrics = trainer.evaluate(named, metric_key_prefix="test")
    for name in named:
        for style in options["eval_styles"]:
            assert metrics[f"test_{name}_{style}_mpck"] >= 0
    assert trainer.evaluate("full")["eval_mpck"] >= 0

    trainer = localizer_trainer(make_localizer, dataset["train"], tmp_path, named)
    assert {"eval_near_mpck", "eval_far_mpck"} <= set(trainer.evaluate())
    assert trainer.predict(rows).metrics["test_mpck"] >= 0


def test_descriptions_are_judged_once_for_each_dataset(
    make_descriptor, make_checkpoint, dataset, tmp_path
):
    named = {"some": dataset["validation"], "others": dataset["test"]}
    trainer = descriptor_trainer(
        make_descriptor,
        dataset["train"],
        tmp_path,
        named,
        localizer=make_checkpoint("localizer"),
        judged_photos=1,
        eval_styles=["full", "terse"],
        max_steps=1,
    )
    seen = SeenMetrics()
    trainer.add_callback(seen)
    trainer.train()
    metrics = trainer.evaluate()
    told = [set(names) for names in seen.metrics]
    for name in named:
        assert sum(f"eval_{name}_mpck" in names for names in told) == 1
        assert metrics[f"eval_{name}_n"] == 3  # points of one photo
        assert {
            f"eval_{name}_{score}" for score in ("mpck", "category", "part")
        } <= set(metrics)
        assert {f"eval_{name}_full_loss", f"eval_{name}_terse_loss"} <= set(metrics)
        assert f"eval_{name}_full_mpck" not in metrics
        assert len(logged(trainer, f"eval_{name}_mpck")) == 1
    assert trainer.evaluate(dataset["test"], metric_key_prefix="test")["test_n"] == 3
    assert "test_mpck" in seen.metrics[-1] or "test_mpck" in seen.metrics[-2]
    assert not any("mpck" in name for name in trainer.predict(dataset["test"]).metrics)


class SeenMetrics(TrainerCallback):
    """Keeps the metrics that callbacks are given."""

    def __init__(self):
        self.metrics = []

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.metrics.append(dict(metrics))


def test_a_run_stops_early_where_the_judged_metric_does_not_grow(
    make_descriptor, make_checkpoint, dataset, tmp_path
):
    trainer = descriptor_trainer(
        make_descriptor,
        dataset["train"],
        tmp_path,
        dataset["validation"],
        localizer=make_checkpoint("localizer"),
        judged_photos=1,
        learning_rate=0.0,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="mpck",
        greater_is_better=True,
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.best_metric == logged(trainer, "eval_mpck")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_train_or_evaluate_on_is_said(make_trainer, rows, tmp_path, kind):
    empty = rows.select([])
    with pytest.raises(
        ValueError, match="train_dataset has no rows, so there is no photo"
    ):
        make_trainer(kind, empty, tmp_path, eval_rows=rows)
    with pytest.raises(
        ValueError, match="eval_dataset has no rows, so there is no photo"
    ):
        make_trainer(kind, rows, tmp_path, eval_rows=empty)
    with pytest.raises(ValueError, match=r"eval_dataset\['far'\] has no rows"):
        make_trainer(kind, rows, tmp_path, eval_rows={"near": rows, "far": empty})
    trainer = make_trainer(kind, rows, tmp_path)
    trainer.evaluation = {}
    with pytest.raises(
        ValueError, match="eval_dataset is missing, so there is no photo"
    ):
        trainer.evaluate()
    stream = rows.to_iterable_dataset().take(0)
    with pytest.raises(ValueError, match="train_dataset gives no photo"):
        make_trainer(kind, stream, tmp_path, eval_rows=rows).train()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_train_photo_there_is_no_training(make_model, tmp_path, kind):
    folder = draw_photos(tmp_path / "photos", SPLIT_NAMES["test"])
    model, processor = make_model(kind)
    with pytest.raises(ValueError, match="train_dataset"):
        TRAINERS[kind](
            model,
            MAKE_ARGS[kind](tmp_path),
            processor,
            train_dataset=load_points(folder).get("train"),
        ).train()


@pytest.mark.parametrize("kind", KINDS)
def test_anything_but_rows_is_refused(make_trainer, dataset, tmp_path, kind):
    with pytest.raises(
        TypeError, match="must be a Dataset or IterableDataset in the row format"
    ):
        make_trainer(kind, dataset, tmp_path)
    with pytest.raises(ValueError, match="point"):
        make_trainer(kind, dataset["train"].remove_columns("point"), tmp_path)


def test_pushed_runs_load_without_the_package(
    hub, stranger, make_localizer, rows, random_image, tmp_path
):
    trainer = localizer_trainer(
        make_localizer,
        rows,
        tmp_path / "run",
        push_to_hub=True,
        hub_model_id="someone/run",
        save_strategy="steps",
        save_steps=2,
        hub_always_push=True,
    )
    trainer.train()
    score = trainer.evaluate()["eval_mpck"]
    trainer.push_to_hub()
    pushed = hub.revisions["models/someone/run"].values()
    for files in [files for files in pushed if "config.json" in files]:
        assert "auto_map" in json.loads(files["config.json"])
        assert "auto_map" in json.loads(files["processor_config.json"])
        assert {
            "pipelines.py",
            "modeling_point_localizer.py",
            "model.safetensors",
        } <= set(files)
    card = ModelCard.load("someone/run")
    assert card.data.pipeline_tag == "keypoint-detection"
    assert 'model="someone/run"' in card.text
    assert f"| eval_mpck | {score:.4g} |" in card.text
    assert "| learning_rate | 0.003 |" in card.text
    assert "4 steps" in card.text

    random_image().save(tmp_path / "image.png")
    program = """
from transformers import pipeline
locate = pipeline("point-localization", model="someone/run", trust_remote_code=True)
print(locate("image.png", text="the nose of the dog"))
"""
    processor = trainer.processing_class
    locate = pipeline(
        "point-localization", model=trainer.model.eval(), processor=processor
    )
    [found] = eval(stranger(program).strip().splitlines()[-1])
    [expected] = locate(random_image(), text="the nose of the dog")
    assert found["point"] == pytest.approx(expected["point"], abs=1e-3)
    assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-4)


def test_a_pushed_descriptor_comes_without_its_auxiliary_heads(
    hub, make_descriptor, rows, tmp_path
):
    options = {
        "heads_weight": 1.0,
        "hub_model_id": "someone/run",
        "save_strategy": "steps",
    }
    trainer = descriptor_trainer(
        make_descriptor, rows, tmp_path, save_steps=2, **options
    )
    trainer.train()
    trainer.save_model()
    trainer.push_to_hub()
    files = hub.repos["models/someone/run"]
    assert set(load(files["model.safetensors"])) <= set(trainer.model.state_dict())
    assert not any("heads" in name for name in files)
    assert "processor_config.json" in files
    card = ModelCard(files["README.md"].decode())
    assert "trl" in card.data.tags
    assert 'pipeline("point-description", model="someone/run"' in card.text


@pytest.mark.parametrize("concatenated", [True, False])
def test_predictions_have_a_row_for_each_text_of_each_photo(
    make_trainer, rows, tmp_path, concatenated
):
    """Also where the last batch has fewer photos than the others."""
    options = {
        "max_eval_photos": 3,
        "per_device_eval_batch_size": 2,
        "eval_do_concat_batches": concatenated,
    }
    sizes = []
    for kind in KINDS:
        found = make_trainer(kind, rows, tmp_path, **options).predict(rows).predictions
        sizes.append([len(found)] if concatenated else [len(batch) for batch in found])
    assert sizes == ([[3], [12]] if concatenated else [[2, 1], [8, 4]])


def test_a_function_of_ones_own_measures(make_model, rows, tmp_path):
    seen = []

    def measure(prediction):
        seen.append(np.shape(prediction.predictions))
        return {"own": 1.0}

    for kind in KINDS:
        model, processor = make_model(kind)
        trainer = TRAINERS[kind](
            model=model,
            args=MAKE_ARGS[kind](tmp_path, max_eval_photos=3),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=processor,
            compute_metrics=measure,
        )
        assert trainer.evaluate()["eval_own"] == 1.0
    assert seen[0] == (3, 4, 2)
    assert seen[1][0] == 12


def test_a_loss_function_of_ones_own_trains_the_localizer(
    make_localizer, rows, tmp_path
):
    trainer = localizer_trainer(make_localizer, rows, tmp_path, max_steps=1)
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append(int(num_items_in_batch))
        return (outputs.points - labels).abs().sum() / num_items_in_batch

    trainer.compute_loss_func = loss
    trainer.train()
    assert seen[0] == 12
    assert 0 < logged(trainer, "loss")[0] < 2


def test_a_checkpoint_is_loaded_as_the_arguments_say(make_checkpoint, rows, tmp_path):
    args = descriptor_args(
        tmp_path / "run", model_init_kwargs={"dtype": "bfloat16"}, max_steps=1
    )
    trainer = PointDescriptorTrainer(
        make_checkpoint("descriptor"), args, train_dataset=rows
    )
    assert trainer.model.dtype == torch.bfloat16
    assert args.model_init_kwargs == {"dtype": "bfloat16"}
    with pytest.raises(ValueError, match="both an argument of the trainer"):
        PointDescriptorTrainer(
            make_checkpoint("descriptor"),
            descriptor_args(
                tmp_path, model_init_kwargs={"quantization_config": object()}
            ),
            train_dataset=rows,
            quantization_config=object(),
        )


def test_options_that_a_trainer_cannot_follow_are_refused(
    make_localizer, make_descriptor, make_model, rows, tmp_path
):
    with pytest.raises(ValueError, match="label_smoothing_factor=0.1"):
        localizer_trainer(make_localizer, rows, tmp_path, label_smoothing_factor=0.1)
    for name, value in [("packing", True), ("shuffle_dataset", True)]:
        with pytest.raises(ValueError, match=f"{name}=True"):
            descriptor_trainer(make_descriptor, rows, tmp_path, **{name: value})
    model, processor = make_model("descriptor")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    refused = [
        ({"formatting_func": str}, "formatting_func"),
        ({"optimizers": (optimizer, None)}, "optimizer_cls_and_kwargs"),
    ]
    for argument, message in refused:
        with pytest.raises(ValueError, match=message):
            PointDescriptorTrainer(
                model,
                descriptor_args(tmp_path, heads_weight=1.0),
                processor,
                train_dataset=rows,
                **argument,
            )


def test_virtual_tokens_move_the_labels(make_descriptor, rows, tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trainer = descriptor_trainer(make_descriptor, rows, tmp_path, peft_config=config)
    batch = next(iter(trainer.get_train_dataloader()))
    expected = trainer.model(**batch).loss
    loss = trainer.compute_loss(trainer.model, dict(batch))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("fields", "options", "missing"),
    [
        ({}, {"heads_weight": 1.0}, "point_targets"),
        ({"point_mask": "predicted"}, {}, "object_boxes"),
    ],
)
def test_a_collator_of_ones_own_brings_what_the_losses_take(
    make_descriptor, rows, tmp_path, fields, options, missing
):
    model, processor = make_descriptor(**fields)
    trainer = PointDescriptorTrainer(
        model,
        descriptor_args(tmp_path, **options),
        processor,
        train_dataset=rows,
        data_collator=DescriptorCollator(processor),
    )
    with pytest.raises(ValueError, match=f"have no {missing}"):
        trainer.train()
