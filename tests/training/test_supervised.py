"""Supervised training of tiny models on a folder of drawn photos."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load, load_file
from transformers import AutoModel, EvalPrediction, TrainingArguments, pipeline
from trl import SFTConfig

from hf_talking_points.data.sources import AnnotatedObject, PartPoint, read_objects, split_of
from hf_talking_points.data.triplets import make_views
from hf_talking_points.training.arguments import ModelArguments
from hf_talking_points.training.supervised import (
    DescriptorCollator,
    PointDescriptorTrainer,
    PointHeads,
    PointLocalizerTrainer,
    box_mask_loss,
    cache_views,
    triplet_dataset,
)

PARTS = {"nose": (0.2, 0.3), "tailbase": (0.8, 0.6), "left_eye": (0.3, 0.1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy photos, a brown or white rectangle on each, with three named points."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(11):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        x, y, w, h = (
            int(v)
            for v in (
                rng.integers(0, 25),
                rng.integers(0, 15),
                rng.integers(24, 36),
                rng.integers(20, 30),
            )
        )
        category, colour = (("dog", (120, 80, 50)), ("sheep", (240, 240, 240)))[i % 2]
        pixels[y : y + h, x : x + w] = colour
        Image.fromarray(pixels).save(folder / f"{i}.png")
        points = [[name, x + u * w, y + v * h] for name, (u, v) in PARTS.items()]
        line = {
            "image": f"{i}.png",
            "size": [64, 48],
            "category": category,
            "object_box": [x, y, x + w, y + h],
            "points": points,
        }
        lines.append(json.dumps(line))
    (folder / "objects.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def views(folder):
    return make_views(read_objects(folder))


def arguments(kind, folder, **kwargs):
    fields = dict(
        per_device_train_batch_size=3,
        learning_rate=3e-3,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        seed=0,
        bf16=False,
    )
    return kind(
        output_dir=str(folder), **{**fields, "max_steps": 4, "save_strategy": "no", **kwargs}
    )


def localizer_trainer(make_localizer, views, folder, head="heatmap", **kwargs):
    model, processor = make_localizer(head=head)
    data = triplet_dataset(
        views,
        processor,
        points_per_image=4,
        style_weights={"full": 0.5, "terse": 0.5},
        surroundings=0.2,
    )
    evaluation = triplet_dataset(views[:4], processor, points_per_image=4, seed=0)
    args = arguments(TrainingArguments, folder, **kwargs)
    return PointLocalizerTrainer(
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=data,
        eval_dataset=evaluation,
    )


def descriptor_trainer(
    make_descriptor, views, folder, fields=None, heads=False, peft_config=None, **kwargs
):
    model, processor = make_descriptor(**(fields or {}))
    data = triplet_dataset(views, processor, points_per_image=4, surroundings=0.2)
    args = arguments(SFTConfig, folder, **kwargs)
    made = PointHeads(64, PARTS, ["dog", "sheep"]) if heads else None
    return PointDescriptorTrainer(
        model=model,
        args=args,
        processing_class=processor,
        train_dataset=data,
        eval_dataset=triplet_dataset(views[:2], processor, points_per_image=3, seed=0),
        heads=made,
        peft_config=peft_config,
    )


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("head", ["mlp", "heatmap"])
def test_localizer_learns_and_reports_mpck(make_localizer, views, tmp_path, head):
    trainer = localizer_trainer(
        make_localizer, views, tmp_path, head, max_steps=30, learning_rate=5e-3
    )
    trainer.train()
    metrics = trainer.evaluate()
    assert np.mean(losses(trainer)[-5:]) < 0.8 * np.mean(losses(trainer)[:3])
    assert (
        metrics["eval_n"] == 16
        and metrics["eval_mpck"] == (metrics["eval_pck@0.1"] + metrics["eval_pck@0.2"]) / 2
    )


def test_evaluation_distances_are_parts_of_the_photo(make_localizer, views, tmp_path):
    """The photos are 4:3 on a square canvas: a quarter of their height is 3/16 of the canvas."""
    trainer = localizer_trainer(make_localizer, views, tmp_path)
    row = trainer.eval_dataset[0]
    moved = row["points"] + torch.tensor([0.0, 0.1875])
    labels = row["points"][None].numpy(), row["scale"][None, None].numpy()
    prediction = EvalPrediction(predictions=moved[None].numpy(), label_ids=labels)
    assert trainer.localization_metrics(prediction)["mean_distance"] == pytest.approx(
        0.25, abs=1e-4
    )


def test_descriptor_learns_with_heads_and_saves_without_them(make_descriptor, views, tmp_path):
    trainer = descriptor_trainer(
        make_descriptor, views, tmp_path, heads=True, max_steps=30, learning_rate=5e-3
    )
    before = {
        name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad
    }
    trainer.train()
    assert np.mean(losses(trainer)[-5:]) < 0.6 * losses(trainer)[0]
    heads = [entry["heads_loss"] for entry in trainer.state.log_history if "heads_loss" in entry]
    assert heads[-1] < heads[0] and any(name.startswith("point_heads") for name in before)
    still = {
        name
        for name, p in trainer.model.named_parameters()
        if name in before and torch.equal(p, before[name])
    }
    unseen = {n for n in still if n.endswith(("embed_tokens.weight", "lm_head.weight"))}
    assert still == unseen, still
    trainer.save_model()
    assert not any("point_heads" in name for name in load_file(tmp_path / "model.safetensors"))
    assert AutoModel.from_pretrained(tmp_path).can_generate()


def test_a_loss_function_of_ones_own_sees_all_logits(make_descriptor, views, tmp_path):
    trainer = descriptor_trainer(make_descriptor, views, tmp_path, max_steps=1)
    seen = []

    def loss(outputs, labels, num_items_in_batch=None):
        seen.append((outputs.logits.shape[:2], labels.shape))
        return 0 * outputs.logits.sum()

    trainer.compute_loss_func = loss
    trainer.train()
    assert seen and all(logits == labels for logits, labels in seen)


def test_predicted_masks_are_supervised_by_the_boxes(make_descriptor, views, tmp_path):
    trainer = descriptor_trainer(
        make_descriptor,
        views,
        tmp_path,
        {"point_mask": "predicted"},
        max_steps=25,
        learning_rate=5e-3,
    )
    trainer.train()
    masks = [entry["mask_loss"] for entry in trainer.state.log_history if "mask_loss" in entry]
    assert np.mean(masks[-5:]) < 0.9 * masks[0]


def test_box_mask_loss_wants_the_inside_of_the_box():
    boxes = torch.tensor([[0.25, 0.0, 0.75, 0.5], [float("nan")] * 4])
    inside = torch.full((2, 8, 8), -20.0)
    inside[:, :4, 2:6] = 20.0
    assert float(box_mask_loss([inside], boxes)) < 1e-3 < 1 < float(box_mask_loss([-inside], boxes))
    assert float(box_mask_loss([inside[1:]], boxes[1:])) == 0


@pytest.mark.parametrize("kind", ["localizer", "descriptor"])
def test_a_resumed_run_ends_like_an_undisturbed_one(
    make_localizer, make_descriptor, views, tmp_path, kind
):
    def trainer(folder, **kwargs):
        if kind == "localizer":
            return localizer_trainer(make_localizer, views, folder, **kwargs)
        return descriptor_trainer(make_descriptor, views, folder, heads=True, **kwargs)

    options = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    undisturbed = trainer(tmp_path / "whole", **options)
    undisturbed.train()
    resumed = trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for (name, one), other in zip(undisturbed.model.named_parameters(), resumed.model.parameters()):
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_the_same_seed_gives_the_same_run(make_localizer, views, tmp_path):
    runs = []
    for name in "ab":
        trainer = localizer_trainer(make_localizer, views, tmp_path / name)
        trainer.train()
        runs.append(losses(trainer))
    assert runs[0] == runs[1]


def test_lora_trains_adapters_alone(make_descriptor, views, tmp_path):
    config = ModelArguments(lora_rank=2).lora_config(["point_projector"])
    trainer = descriptor_trainer(make_descriptor, views, tmp_path, peft_config=config)
    trainer.train()
    names = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert names and all("lora_" in name or "modules_to_save" in name for name in names)
    assert {"language_model" in name for name in names if "lora_" in name} == {True}


def test_gradient_checkpointing_and_bfloat16_train(make_descriptor, views, tmp_path):
    trainer = descriptor_trainer(
        make_descriptor,
        views,
        tmp_path,
        bf16=True,
        gradient_checkpointing=True,
        max_steps=25,
        learning_rate=5e-3,
    )
    trainer.train()
    assert np.mean(losses(trainer)[-5:]) < 0.7 * losses(trainer)[0]


def test_heads_and_adapters_exclude_each_other(make_descriptor, views, tmp_path):
    with pytest.raises(ValueError, match="leave one of the two out"):
        descriptor_trainer(
            make_descriptor,
            views,
            tmp_path,
            heads=True,
            peft_config=ModelArguments(lora_rank=2).lora_config(),
        )


def test_cached_features_equal_computed_ones(make_localizer, views, tmp_path):
    model, processor = make_localizer()
    caches = [cache_views(tmp_path, model.model.backbone, processor, views) for _ in range(2)]
    pixels, cached = (
        triplet_dataset(views, processor, cache, seed=0)[0] for cache in (None, caches[1])
    )
    with torch.no_grad():
        expected = model.model.backbone(pixels["pixel_values"][None]).feature_maps
    for one, other in zip(cached["feature_maps"], expected):
        torch.testing.assert_close(
            one, other[0].float(), atol=0.05, rtol=0.05
        )  # computed under bfloat16 autocast, kept in half precision
    assert cached["descriptions"] == pixels["descriptions"] and torch.equal(
        cached["points"], pixels["points"]
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_was_cut_off_is_completed(make_localizer, views, tmp_path):
    model, processor = make_localizer()
    many = (views * 80)[:720]  # progress is noted every 640
    whole = cache_views(tmp_path / "whole", model.model.backbone, processor, many)
    model.model.backbone.register_forward_hook(fail_at_call(21))
    with pytest.raises(KeyboardInterrupt):
        cache_views(tmp_path / "cut", model.model.backbone, processor, many)
    model.model.backbone._forward_hooks.clear()
    calls = []
    model.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    completed = cache_views(tmp_path / "cut", model.model.backbone, processor, many)
    assert len(calls) == 3  # 80 canvases in batches of 32
    for one, other in zip(whole.levels, completed.levels):
        np.testing.assert_array_equal(one, other)


def fail_at_call(number):
    calls = []

    def hook(*args):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt

    return hook


def test_another_backbone_has_another_cache(make_localizer, views, tmp_path):
    for seed in (0, 1):
        model, processor = make_localizer(seed=seed)
        cache_views(tmp_path, model.model.backbone, processor, views)
    assert len(list(tmp_path.iterdir())) == 2


def test_labels_cover_the_descriptions_alone(make_descriptor, views):
    _, processor = make_descriptor()
    rows = triplet_dataset(views[:2], processor, points_per_image=3, seed=0)[:]
    batch = DescriptorCollator(processor)([{k: v[i] for k, v in rows.items()} for i in range(2)])
    texts = [text for row in rows["descriptions"] for text in row]
    assert batch["input_points"].shape == (2, 3, 2) and len(batch["labels"]) == 6
    for label, text in zip(batch["labels"], texts):
        assert processor.tokenizer.decode(label[label >= 0]) == text + processor.tokenizer.eos_token


def test_head_targets():
    heads = PointHeads(8, ["nose", "tail"], ["cat", "dog"])
    annotated = AnnotatedObject("dog", (10, 20, 50, 60), ())
    targets = heads.targets((annotated, PartPoint("tail", 20, 40)), (100, 80))
    np.testing.assert_allclose(targets, [1, 1, 0.25, 0.5, 0.3, 0.5, 0.4, 0.5])
    assert heads.targets(None, (100, 80))[:2] == [-100, 2]
    assert torch.isfinite(heads(torch.randn(1, 8), torch.tensor([heads.targets(None, (100, 80))])))


def run_example(kind, folder, output, **fields):
    root = Path(__file__).parent.parent.parent
    options = yaml.safe_load((root / f"examples/train_{kind}.yaml").read_text())
    options = {
        name: value for name, value in options.items() if name not in ("backbone", "localizer")
    }
    options |= {
        "max_steps": 2,
        "save_steps": 1,
        "eval_steps": 2,
        "views_per_photo": 2,
        "data_dir": [str(folder)],
    }
    options |= {
        "feature_cache": str(output / "cache"),
        "output_dir": str(output / "run"),
        "half_precision_dir": str(output / "half"),
    }
    output.mkdir(exist_ok=True)
    (output / "run.yaml").write_text(yaml.safe_dump(options | fields))
    command = [sys.executable, f"examples/train_{kind}.py", "--config", str(output / "run.yaml")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["localizer", "descriptor"])
def test_examples_run_from_a_clone(folder, tmp_path, kind):
    assert {split_of(f"{i}.png") for i in range(11)} == {"train", "validation", "test"}
    run_example(kind, folder, tmp_path)
    assert AutoModel.from_pretrained(tmp_path / "half").dtype == torch.float32


@pytest.mark.parametrize("kind", ["localizer", "descriptor"])
def test_the_same_command_gives_the_same_fresh_model(folder, tmp_path, kind):
    models = []
    for name in "ab":
        run_example(kind, folder, tmp_path / name, layers=1, eval_strategy="no", max_steps=1)
        models.append(load_file(tmp_path / name / "run" / "model.safetensors"))
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name


def test_pushed_runs_load_without_the_package(
    hub, stranger, make_localizer, views, random_image, tmp_path
):
    pushing = dict(
        push_to_hub=True,
        hub_model_id="someone/run",
        save_strategy="steps",
        save_steps=2,
        hub_always_push=True,
    )
    trainer = localizer_trainer(make_localizer, views, tmp_path / "run", **pushing)
    trainer.train()
    score = trainer.evaluate()["eval_mpck"]
    trainer.push_to_hub()
    for files in (
        files for files in hub.revisions["models/someone/run"].values() if "config.json" in files
    ):
        assert "auto_map" in json.loads(files["config.json"]) and "auto_map" in json.loads(
            files["processor_config.json"]
        )
        assert {"pipelines.py", "modeling_point_localizer.py", "model.safetensors"} <= set(files)
    card = ModelCard.load("someone/run")
    assert card.data.pipeline_tag == "keypoint-detection" and 'model="someone/run"' in card.text
    assert (
        f"| eval_mpck | {score:.4g} |" in card.text
        and "| learning_rate | 0.003 |" in card.text
        and "4 steps" in card.text
    )
    random_image().save(tmp_path / "image.png")
    program = """
from transformers import pipeline
print(pipeline("point-localization", model="someone/run", trust_remote_code=True)("image.png", text="the nose of the dog"))
"""
    locate = pipeline(
        "point-localization", model=trainer.model.eval(), processor=trainer.processing_class
    )
    [found], [expected] = (
        eval(stranger(program).strip().splitlines()[-1]),
        locate(random_image(), text="the nose of the dog"),
    )
    assert found["point"] == pytest.approx(expected["point"], abs=1e-3) and found[
        "confidence"
    ] == pytest.approx(expected["confidence"], abs=1e-4)


def test_a_pushed_descriptor_comes_without_its_training_heads(
    hub, make_descriptor, views, tmp_path
):
    trainer = descriptor_trainer(
        make_descriptor, views, tmp_path, heads=True, hub_model_id="someone/run"
    )
    trainer.train()
    trainer.save_model()
    trainer.push_to_hub()
    files = hub.repos["models/someone/run"]
    assert (
        not any("point_heads" in name for name in load(files["model.safetensors"]))
        and "processor_config.json" in files
    )
    card = ModelCard(files["README.md"].decode())
    assert (
        "trl" in card.data.tags and 'pipeline("point-description", model="someone/run"' in card.text
    )
