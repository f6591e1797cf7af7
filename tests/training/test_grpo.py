"""GRPO and RLOO on tiny models: the point reaches every pass, and what is shared changes nothing."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from datasets import Dataset, Image
from huggingface_hub import ModelCard
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_talking_points import (
    LocalizerReward,
    PointDescriptionPipeline,
    PointGRPOConfig,
    PointGRPOTrainer,
    PointRLOOConfig,
    PointRLOOTrainer,
    paper_lora_config,
)
from hf_talking_points.hub import push_checkpoint
from hf_talking_points.training.grpo import keep_groups_together

G = 3


@pytest.fixture(scope="module")
def checkpoint(make_descriptor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("descriptor")
    for part in make_descriptor():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def localizer(make_localizer):
    return make_localizer(head="mlp")


@pytest.fixture(scope="module")
def dataset(random_image):
    """Four points on three images of different sizes."""
    images = [random_image(0), random_image(1, 50, 90), random_image(2, 120, 40)]
    images = [images[0], images[0], images[1], images[2]]
    points = [[10.0, 20.0], [80.0, 50.0], [30.0, 70.0], [100.0, 5.0]]
    return Dataset.from_dict(
        {"image": images, "point": points, "part": ["ear", "eye", "tail", "nose"]}
    ).cast_column("image", Image())


def build(
    checkpoint,
    dataset,
    folder,
    reward=None,
    lora=False,
    trainer=PointGRPOTrainer,
    model=None,
    eval_dataset=None,
    **kwargs,
):
    fields = dict(
        per_device_train_batch_size=4 * G,
        max_completion_length=6,
        learning_rate=1e-3,
        max_steps=2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    return trainer(
        model=model or checkpoint,
        reward_funcs=reward or length_reward,
        args=trainer.config_class(output_dir=str(folder), **{**fields, **kwargs}),
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=AutoProcessor.from_pretrained(checkpoint),
        peft_config=paper_lora_config(r=4, lora_alpha=8) if lora else None,
    )


def length_reward(completion_ids, **kwargs):
    return [float(sum(ids) % 7) for ids in completion_ids]


def rollouts(trainer, dataset, copies=G):
    """One generation batch, as `_prepare_inputs` would have it before shuffling."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer._generate_and_score_completions([row for row in dataset for _ in range(copies)])


def log_probs(trainer, output, model=None):
    trainer._samples = output["samples"]
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], 1)
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], 1)
    model = trainer.model if model is None else model
    logps = trainer._get_per_token_logps_and_entropies(
        model, ids, mask, output["completion_ids"].shape[1], batch_size=2 * G
    )[0]
    return logps * output["completion_mask"]


def plain_log_probs(model, processor, dataset, output):
    """Row by row with the model alone."""
    result = []
    for row, (ids, mask) in enumerate(zip(output["completion_ids"], output["completion_mask"])):
        record = dataset[row // G]
        inputs = processor(images=record["image"], points=[record["point"]])
        prompt = inputs.pop("input_ids")[0]
        inputs.pop("attention_mask")
        logits = model(input_ids=torch.cat([prompt, ids])[None], **inputs).logits[
            0, len(prompt) - 1 : -1
        ]
        result.append(logits.log_softmax(-1).gather(1, ids[:, None])[:, 0] * mask)
    return torch.stack(result)


def gradients(trainer, values):
    trainer.model.zero_grad()
    weights = torch.linspace(-1, 1, values.numel()).view_as(values)
    (values * weights).sum().backward()
    return {
        name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None
    }


def assert_close(one, other, relative):
    """Each tensor to a relative tolerance; some gradients, such as that of a bias before a norm, are nothing but rounding."""
    assert one.keys() == other.keys() and one
    largest = max(value.norm() for value in other.values())
    for name in one:
        assert (one[name] - other[name]).norm() <= relative * other[name].norm() + 1e-6 * largest, (
            name
        )


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("lora", [False, True])
def test_the_point_reaches_old_reference_and_new_log_probs(
    checkpoint, dataset, tmp_path, beta, lora
):
    # two steps on one generation batch, so that TRL computes the old log-probs
    trainer = build(
        checkpoint,
        dataset,
        tmp_path,
        lora=lora,
        beta=beta,
        per_device_train_batch_size=2 * G,
        steps_per_generation=2,
    )
    plain = AutoModelForImageTextToText.from_pretrained(checkpoint)
    output = rollouts(trainer, dataset)
    expected = plain_log_probs(plain, trainer.processing_class, dataset, output)
    passes = ["old_per_token_logps"] + ["ref_per_token_logps"] * (beta > 0)
    for name in passes:
        torch.testing.assert_close(
            output[name] * output["completion_mask"], expected, atol=1e-4, rtol=0
        )
    torch.testing.assert_close(log_probs(trainer, output), expected, atol=1e-4, rtol=0)

    flipped = [
        {**row, "point": [side - v for side, v in zip(row["image"].size, row["point"])]}
        for row in dataset
    ]
    moved = {**output, "samples": trainer._make_samples([row for row in flipped for _ in range(G)])}
    models = [trainer.model, *([trainer.ref_model] if trainer.ref_model else [])]
    for model in models:
        difference = (log_probs(trainer, moved, model) - expected).abs().amax(1)
        assert (difference > 1e-3).all(), difference
    assert ("ref_per_token_logps" in output) == (beta > 0)


@pytest.mark.parametrize("trainer_class", [PointGRPOTrainer, PointRLOOTrainer])
@pytest.mark.parametrize("share", [True, False])
def test_the_point_reaches_generation(checkpoint, dataset, tmp_path, share, trainer_class):
    greedy = {"do_sample": False}
    trainer = build(
        checkpoint,
        dataset,
        tmp_path,
        trainer=trainer_class,
        share_encodings=share,
        generation_kwargs=greedy,
    )
    output = rollouts(trainer, dataset)
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        trainer.processing_class,
    )
    describe = PointDescriptionPipeline(model=model, processor=processor)
    texts = processor.batch_decode(output["completion_ids"], skip_special_tokens=True)
    for row, text in enumerate(texts):
        record = dataset[row // G]
        assert (
            text.strip()
            == describe(record["image"], points=[record["point"]], max_new_tokens=6)[0][
                "description"
            ]
        )
    assert len(set(texts)) > 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("train_vision", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_sharing_changes_neither_log_probs_nor_gradients(
    checkpoint, dataset, tmp_path, checkpointing, train_vision, lora
):
    if lora and train_vision:
        pytest.skip("an adapter freezes what precedes the language model")
    results = []
    for share in (True, False):
        options = dict(
            lora=lora,
            train_vision=train_vision,
            gradient_checkpointing=checkpointing,
            share_encodings=share,
        )
        trainer = build(checkpoint, dataset, tmp_path, **options)
        if lora:  # a fresh adapter has no gradient in one of its halves
            torch.manual_seed(0)
            for name, parameter in trainer.model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        torch.manual_seed(0)
        output = rollouts(trainer, dataset)
        values = log_probs(trainer, output)
        results.append((output["completion_ids"], values.detach(), gradients(trainer, values)))
    shared, plain = results
    assert torch.equal(shared[0], plain[0])
    torch.testing.assert_close(shared[1], plain[1], atol=1e-4, rtol=0)
    assert_close(shared[2], plain[2], 1e-3)
    vision = [name for name in shared[2] if "language_model" not in name and "lm_head" not in name]
    assert bool(vision) == train_vision


def test_each_image_and_prompt_is_run_once(checkpoint, dataset, tmp_path):
    trainer = build(
        checkpoint,
        dataset,
        tmp_path,
        per_device_train_batch_size=2 * G,
        gradient_accumulation_steps=2,
        max_steps=1,
    )
    images, rows = [], []
    core = trainer.model.base_model
    core.backbone.register_forward_hook(lambda module, args, out: images.append(len(args[0])))
    core.language_model.register_forward_hook(
        lambda module, args, kwargs, out: rows.append(tuple(kwargs["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    reference = []
    trainer.ref_model.base_model.backbone.register_forward_hook(lambda *args: reference.append(1))
    trainer.train()
    assert images == [3] and not reference
    assert rows[0][0] == 4 and rows[1] == (4 * G, 1)  # prefill, then one token at a time
    assert all(
        n == 2 for n, _ in rows[-2:]
    )  # two points in each micro-batch, each with its completions in one row


@pytest.mark.parametrize("trainer_class", [PointGRPOTrainer, PointRLOOTrainer])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lora": True},
        {"gradient_checkpointing": True},
        {"lora": True, "gradient_checkpointing": True},
        {"per_device_train_batch_size": G, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
        {"num_iterations": 2, "max_steps": 4},
        {"train_vision": True},
        {"share_encodings": False},
        {"beta": 0.0},
    ],
    ids=str,
)
def test_every_trainable_parameter_moves_and_the_localizer_stays(
    checkpoint, dataset, localizer, tmp_path, options, trainer_class
):
    reward = LocalizerReward(*localizer, reward_scale=10.0)
    frozen = copy.deepcopy(localizer[0].state_dict())
    trainer = build(checkpoint, dataset, tmp_path, reward, trainer=trainer_class, **options)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("language_model" in name for name in trainable)
    trainer.train()
    moved = {
        name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])
    }
    assert moved == trainable
    assert all(
        torch.equal(value, frozen[name]) for name, value in localizer[0].state_dict().items()
    )
    logged = trainer.state.log_history[0]
    assert {
        "localizer/distance",
        "localizer/pck@0.1",
        "localizer/pck@0.05",
        "localizer/refused",
        "localizer/distinct_2",
    } <= logged.keys()
    assert np.isfinite(logged["loss"])


def test_with_and_without_sharing_training_goes_the_same_way(
    checkpoint, dataset, localizer, tmp_path
):
    options = dict(
        max_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=3
    )  # groups cut by the micro-batches
    trainers = []
    for share in (True, False):
        trainers.append(
            build(
                checkpoint,
                dataset,
                tmp_path,
                LocalizerReward(*localizer),
                share_encodings=share,
                **options,
            )
        )
        trainers[-1].train()
    rewards = [
        [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
        for trainer in trainers
    ]
    np.testing.assert_allclose(*rewards, atol=1e-5)
    one, other = (
        {name: p.detach() for name, p in trainer.model.named_parameters()} for trainer in trainers
    )
    assert_close(one, other, 2e-3)


def test_groups_stay_together():
    samples = [object() for _ in range(3)]
    order = [2, 0, 1, 0, 2, 1]
    batches = [
        {
            "ids": torch.tensor(part),
            "count": torch.tensor(6),
            "none": None,
            "samples": [samples[i] for i in part],
        }
        for part in (order[:3], order[3:])
    ]
    kept = keep_groups_together(batches)
    assert [batch["ids"].tolist() for batch in kept] == [[2, 2, 0], [0, 1, 1]]
    assert [samples.index(s) for batch in kept for s in batch["samples"]] == [2, 2, 0, 0, 1, 1]
    assert kept[1]["count"] == 6 and kept[0]["none"] is None


def test_evaluation_between_steps_on_one_generation_batch(checkpoint, dataset, localizer, tmp_path):
    """Evaluation has completions of its own; the second step goes on with those of the first."""
    finals = []
    for strategy in ("no", "steps"):
        options = dict(num_iterations=2, max_steps=2, eval_strategy=strategy, eval_steps=1)
        evaluation = dataset.select([2, 3])
        trainer = build(
            checkpoint,
            dataset,
            tmp_path,
            LocalizerReward(*localizer),
            eval_dataset=evaluation,
            **options,
        )
        trainer.train()
        finals.append({name: p.detach() for name, p in trainer.model.named_parameters()})
    assert_close(*finals, 1e-6)
    evaluated = [entry for entry in trainer.state.log_history if "eval_localizer/distance" in entry]
    assert len(evaluated) == 2


@pytest.mark.parametrize("step", [2, 3, 5, 6])
def test_resuming_continues_the_same_trajectory(checkpoint, dataset, tmp_path, step):
    """At step 3 half of the updates on a generation batch are still to come; an epoch ends after step 4."""
    options = dict(
        num_iterations=2,
        max_steps=10,
        save_strategy="steps",
        save_steps=1,
        per_device_train_batch_size=2 * G,
    )
    whole = build(checkpoint, dataset, tmp_path, **options)
    whole.train()
    resumed = build(checkpoint, dataset, tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    one, other = (
        {name: p.detach() for name, p in t.model.named_parameters()} for t in (resumed, whole)
    )
    assert_close(one, other, 1e-6)


def test_other_columns_reach_the_rewards(checkpoint, dataset, tmp_path):
    seen = []

    def reward(completions, part, point, image, **kwargs):
        seen.extend(zip(part, map(tuple, point), (i.size for i in image)))
        return [0.0] * len(completions)

    rollouts(build(checkpoint, dataset, tmp_path, reward), dataset)
    assert seen == [
        (row["part"], tuple(row["point"]), row["image"].size) for row in dataset for _ in range(G)
    ]


def test_completions_are_logged_and_drawn(checkpoint, dataset, localizer, tmp_path):
    pandas = pytest.importorskip("pandas")
    build(
        checkpoint,
        dataset,
        tmp_path,
        LocalizerReward(*localizer),
        log_completions=True,
        picture_steps=2,
        max_steps=3,
    ).train()
    table = pandas.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    assert {"completion", "localizer", "localizer_found", "point", "advantage"} <= set(
        table.columns
    ) and len(table) == 4 * G
    assert sorted(p.name for p in (tmp_path / "_pictures").glob("*.png")) == [
        "round_trip_00000.png",
        "round_trip_00002.png",
    ]


def test_pictures_reach_tensorboard(checkpoint, dataset, localizer, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    build(
        checkpoint,
        dataset,
        tmp_path,
        LocalizerReward(*localizer),
        picture_steps=1,
        report_to="tensorboard",
    ).train()
    events = accumulator.EventAccumulator(str(tmp_path / "board")).Reload()
    assert [event.step for event in events.Images("round_trip")] == [0, 1]
    assert "train/localizer/distance" in events.Tags()["scalars"]


def test_defaults_are_the_papers():
    args = PointGRPOConfig()
    assert (args.num_generations, args.beta, args.learning_rate, args.num_train_epochs) == (
        3,
        0.1,
        5e-6,
        3,
    )
    assert (args.loss_type, args.scale_rewards, args.use_bias_correction_kl) == (
        "grpo",
        "group",
        False,
    )
    assert args.generation_batch_size == 24
    assert PointRLOOConfig().generation_batch_size == 24


@pytest.mark.parametrize("config", [PointGRPOConfig, PointRLOOConfig])
def test_vllm_is_refused(config):
    with pytest.raises(ValueError, match="the point would not reach the policy"):
        config(use_vllm=True)


def with_point(dataset, point):
    points = dataset["point"][:]
    points[2] = point
    return dataset.remove_columns("point").add_column("point", points)


@pytest.mark.parametrize(
    "point", [[51.0, 10.0], [float("nan"), 3.0], [-1.0, 2.0], [1.0, 2.0, 3.0], []]
)
def test_points_off_the_image_are_refused_by_row(checkpoint, dataset, tmp_path, point):
    with pytest.raises(ValueError, match="row 2 of train_dataset: point"):
        build(checkpoint, with_point(dataset, point), tmp_path)


def test_points_of_transformed_rows_are_refused_when_used(checkpoint, dataset, tmp_path):
    wrong = with_point(dataset, [51.0, 10.0]).with_transform(lambda batch: batch)
    trainer = build(checkpoint, wrong, tmp_path)
    with pytest.raises(ValueError, match="row 2 of the dataset: point 0 is"):
        trainer.train()


def test_wrong_arguments(checkpoint, dataset, localizer, tmp_path, make_descriptor):
    with pytest.raises(ValueError, match="'point' is missing"):
        build(checkpoint, dataset.remove_columns("point"), tmp_path)
    with pytest.raises(ValueError, match=r"eval_dataset\['a'\] has the columns"):
        build(checkpoint, dataset, tmp_path, eval_dataset={"a": dataset.remove_columns("image")})
    with pytest.raises(ValueError, match="must be a Point Descriptor, got a point_localizer"):
        build(checkpoint, dataset, tmp_path, model=localizer[0])
    with pytest.raises(ValueError, match="save the model"):
        build(checkpoint, dataset, tmp_path, model=make_descriptor()[0])
    with pytest.raises(TypeError, match="args must be a PointRLOOConfig, got PointGRPOConfig"):
        PointRLOOTrainer(checkpoint, length_reward, PointGRPOConfig(), dataset)
    with pytest.raises(ValueError, match="precedes the language model but would be trained"):
        PointGRPOTrainer(
            checkpoint,
            length_reward,
            PointGRPOConfig(str(tmp_path)),
            dataset,
            processing_class=AutoProcessor.from_pretrained(checkpoint),
            peft_config=paper_lora_config(target_modules=["q_proj"]),
        )


@pytest.mark.slow
def test_a_preferred_word_is_learned(checkpoint, dataset, tmp_path):
    def reward(completions, **kwargs):
        return [float(completion[0]["content"].split() == ["red"]) for completion in completions]

    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        AutoProcessor.from_pretrained(checkpoint),
    )
    optimizer = torch.optim.AdamW(model.model.language_model.parameters(), lr=1e-2)
    answers = [
        processor.render(colour)
        for colour in ("red", "green", "blue", "yellow", "white", "black")
        for _ in range(2)
    ]
    for _ in range(40):  # first it says one colour as well as another
        prompt = processor(
            images=dataset[0]["image"],
            points=[dataset[0]["point"]] * len(answers),
            text=answers,
            padding_side="right",
        )
        labels = prompt["input_ids"].masked_fill(prompt["attention_mask"] == 0, -100)
        labels[:, : processor.tokenize([processor.render()])["input_ids"].shape[1]] = -100
        model(**prompt, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "colours")
    processor.save_pretrained(tmp_path / "colours")
    options = dict(
        num_generations=8,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        max_steps=30,
        beta=0.01,
    )
    trainer = build(str(tmp_path / "colours"), dataset, tmp_path, reward, **options)
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards[0] < 0.5 and np.mean(rewards[-3:]) > 0.9, rewards


SCRIPT = """
import os, signal, sys
import torch
import yaml
from transformers import TrainerCallback
sys.path.insert(0, sys.argv[1])
from test_grpo import build, length_reward
from datasets import Dataset, Image
from huggingface_hub import ModelCard

def dataset(folder):
    return Dataset.load_from_disk(folder)
"""


def run_script(body, *arguments, launcher=()):
    command = (
        [sys.executable, *launcher, "-c", SCRIPT + body]
        if not launcher
        else [sys.executable, *launcher]
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        ),
    }
    return subprocess.run(
        [*command, str(Path(__file__).parent), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )


def test_pictures_reach_trackio(checkpoint, dataset, localizer, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    dataset.save_to_disk(tmp_path / "data")
    for part in localizer:
        part.save_pretrained(tmp_path / "localizer")
    body = """
from hf_talking_points import LocalizerReward
reward = LocalizerReward(sys.argv[4] + "/localizer")
build(sys.argv[2], dataset(sys.argv[3]), sys.argv[4], reward, picture_steps=1, report_to="trackio").train()
"""
    ran = run_script(body, checkpoint, tmp_path / "data", tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert len(list((tmp_path / "trackio" / "media").rglob("*.png"))) == 2


@pytest.mark.parametrize("name", ["accelerate_ddp.yaml", "accelerate_zero2.yaml"])
def test_launch_configs_are_accelerates(name):
    config = load_config_from_file(str(Path(__file__).parents[2] / "examples" / name))
    assert config.mixed_precision == "bf16" and config.num_processes == 8


@pytest.mark.slow
def test_resuming_after_a_kill(checkpoint, dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "data")
    body = """
class Kill(TrainerCallback):
    def on_save(self, args, state, control, **kwargs):
        if state.global_step == 3 and sys.argv[5] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

trainer = build(sys.argv[2], dataset(sys.argv[3]), sys.argv[4], num_iterations=2, max_steps=6, save_strategy="steps", save_steps=1)
trainer.add_callback(Kill())
trainer.train(resume_from_checkpoint=sys.argv[5] == "resume")
torch.save(trainer.model.state_dict(), sys.argv[4] + "/final.pt")
"""
    killed = run_script(body, checkpoint, tmp_path / "data", tmp_path / "cut", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    for folder, mode in (("cut", "resume"), ("whole", "whole")):
        ran = run_script(body, checkpoint, tmp_path / "data", tmp_path / folder, mode)
        assert ran.returncode == 0, ran.stderr[-3000:]
    assert_close(*(torch.load(tmp_path / folder / "final.pt") for folder in ("cut", "whole")), 1e-6)


@pytest.mark.slow
def test_two_processes_give_loss_and_gradients_of_one(checkpoint, dataset, tmp_path):
    """On the same recorded completions."""
    dataset.save_to_disk(tmp_path / "data")
    body = """
trainer = build(sys.argv[2], dataset(sys.argv[3]), sys.argv[4], per_device_train_batch_size=6)
accelerator, rank = trainer.accelerator, trainer.accelerator.process_index
trainer.current_gradient_accumulation_steps = 1
rows = [row for row in trainer.train_dataset for _ in range(3)]
recorded = torch.load(sys.argv[4] + "/recorded.pt")
share = len(rows) // accelerator.num_processes
own = slice(rank * share, (rank + 1) * share)
inputs = {name: value[own] if value.ndim else value for name, value in recorded.items()}
inputs["samples"] = trainer._make_samples(rows[own])
model = accelerator.prepare(trainer.model).train()
loss = trainer.compute_loss(model, inputs)
accelerator.backward(loss)
loss = accelerator.gather(loss.detach()).mean()
if accelerator.is_main_process:
    grads = {n: p.grad for n, p in accelerator.unwrap_model(model).named_parameters() if p.grad is not None}
    torch.save({"loss": loss, **grads}, f"{sys.argv[4]}/{accelerator.num_processes}.pt")
accelerator.wait_for_everyone()
accelerator.end_training()
"""
    trainer = build(checkpoint, dataset, tmp_path)
    torch.manual_seed(0)
    recorded = rollouts(trainer, dataset)
    recorded.pop("samples")
    recorded["ref_per_token_logps"] = (
        recorded["ref_per_token_logps"] + 0.3
    )  # a KL divergence that is not 0
    torch.save(recorded, tmp_path / "recorded.pt")
    script = tmp_path / "run.py"
    script.write_text(SCRIPT + body)
    for launcher in (
        [script],
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script],
    ):
        ran = run_script(
            body, checkpoint, tmp_path / "data", tmp_path, launcher=list(map(str, launcher))
        )
        assert ran.returncode == 0, ran.stderr[-3000:]
    assert_close(*(torch.load(tmp_path / f"{count}.pt") for count in (2, 1)), 1e-5)


@pytest.mark.slow
def test_example_runs_from_a_clone(checkpoint, localizer, dataset, tmp_path):
    """On COCO keypoints and on a folder, in turn; the second run goes on from the first one's checkpoint."""
    images, annotations, lines = [], [], []
    for number in range(40):
        photo = dataset[number % 4]["image"]
        photo.save(tmp_path / f"{number}.png")
        width, height = photo.size
        images.append(
            {"id": number, "file_name": f"{number}.png", "width": width, "height": height}
        )
        keypoints = [10, 10, 2, 20, 30, 2]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [0, 0, width, height],
                "keypoints": keypoints,
            }
        )
        points = [["nose", 10.5, 10.5], ["tail", 20.5, 30.5]]
        box = [0, 0, width, height]
        lines.append(
            {
                "image": f"{number}.png",
                "size": [width, height],
                "category": "dog",
                "object_box": box,
                "points": points,
            }
        )
    categories = [{"id": 1, "name": "dog", "keypoints": ["nose", "tail"]}]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (tmp_path / "objects.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for part in localizer:
        part.save_pretrained(tmp_path / "localizer")
    root = Path(__file__).parents[2]
    options = yaml.safe_load((root / "examples/run_grpo.yaml").read_text())
    options |= {
        "model_name_or_path": checkpoint,
        "localizers": [str(tmp_path / "localizer")],
        "output_dir": str(tmp_path / "run"),
    }
    options |= {
        "per_device_train_batch_size": 6,
        "max_eval_points": 4,
        "per_device_eval_batch_size": 6,
        "save_steps": 1,
        "eval_steps": 1,
    }
    sources = (
        {"coco_annotations": str(tmp_path / "coco.json"), "coco_images": str(tmp_path)},
        {"data_dir": [str(tmp_path)]},
    )
    for steps, source in enumerate(sources, 1):
        (tmp_path / "run.yaml").write_text(
            yaml.safe_dump({**options, **source, "max_steps": steps})
        )
        command = [sys.executable, "examples/run_grpo.py", "--config", str(tmp_path / "run.yaml")]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=root)
        assert ran.returncode == 0, ran.stderr[-3000:]
    assert (tmp_path / "run" / "checkpoint-2").is_dir()
    assert (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "run").config.model_type
        == "point_descriptor"
    )


def test_a_pushed_adapter_records_its_base_and_loads_without_the_package(
    hub, stranger, checkpoint, dataset, tmp_path
):
    push_checkpoint(checkpoint, "someone/base")
    trainer = build(
        "someone/base",
        dataset,
        tmp_path / "run",
        lora=True,
        push_to_hub=True,
        hub_model_id="someone/policy",
    )
    trainer.train()
    trainer.push_to_hub()
    files = hub.repos["models/someone/policy"]
    assert "model.safetensors" not in files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "someone/base"
    card = ModelCard(files["README.md"].decode())
    assert (
        card.data.base_model == "someone/base"
        and card.data.library_name == "peft"
        and "grpo" in card.data.tags
    )
    image, point = dataset[0]["image"], dataset[0]["point"]
    image.save(tmp_path / "image.png")
    program = f"""
from transformers import pipeline
describe = pipeline("point-description", model="someone/policy", trust_remote_code=True, max_new_tokens=6)
print(describe("image.png", points=[{point}]))
"""
    describe = PointDescriptionPipeline(
        model=trainer.model.eval().merge_and_unload(), processor=trainer.processing_class
    )
    assert stranger(program).strip().splitlines()[-1] == repr(
        describe(image, points=[point], max_new_tokens=6)
    )


def test_an_adapter_that_nobody_could_load_is_not_pushed(hub, checkpoint, dataset, tmp_path):
    with pytest.raises(ValueError, match="push it first"):
        build(
            checkpoint,
            dataset,
            tmp_path,
            lora=True,
            push_to_hub=True,
            hub_model_id="someone/policy",
        )
    with pytest.raises(ValueError, match="push it first"):
        build(checkpoint, dataset, tmp_path, lora=True, hub_model_id="someone/policy").push_to_hub()
    assert hub.repos == {}
