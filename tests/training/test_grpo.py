"""GRPO and RLOO on tiny models: the point reaches every pass, and what is shared changes nothing."""

import copy
from functools import partial

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import IterableDataset, load_dataset
from grpo_runs import (
    G,
    assert_close,
    build,
    gradients,
    length_reward,
    log_probs,
    logged,
    make_args,
    parameters,
    plain_log_probs,
    repeated,
    rollouts,
)
from peft import PrefixTuningConfig, PromptTuningConfig
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
from hf_talking_points.data.builder import BuildOptions, build_dataset
from hf_talking_points.data.rows import load_points
from hf_talking_points.data.sources import read_objects
from hf_talking_points.training.grpo import up_to_end

TRAINERS = [PointGRPOTrainer, PointRLOOTrainer]


@pytest.fixture(scope="module")
def localizer(make_localizer):
    return make_localizer(head="mlp")


def flipped(rows):
    """The rows with the point on the opposite side of its image's center."""
    result = []
    for row in rows:
        width, height = row["image"].size
        x, y = row["point"]
        result.append({**row, "point": [width - x, height - y]})
    return result


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("lora", [False, True])
def test_the_point_reaches_old_reference_and_new_log_probs(
    make_trainer, policy_checkpoint, four_points, beta, lora
):
    # two steps on one generation batch, so that TRL computes the old log-probs
    trainer = make_trainer(
        lora=lora, beta=beta, per_device_train_batch_size=2 * G, steps_per_generation=2
    )
    plain = AutoModelForImageTextToText.from_pretrained(policy_checkpoint)
    output = rollouts(trainer, four_points)
    expected = plain_log_probs(plain, trainer.processing_class, four_points, output)
    close = partial(torch.testing.assert_close, expected=expected, atol=1e-4, rtol=0)
    close(output["old_per_token_logps"] * output["completion_mask"])
    close(log_probs(trainer, output))
    assert ("ref_per_token_logps" in output) == (beta > 0)
    if beta:
        close(output["ref_per_token_logps"] * output["completion_mask"])

    moved = {**output, "samples": trainer._make_samples(repeated(flipped(four_points)))}
    models = [trainer.model]
    if trainer.ref_model:
        models.append(trainer.ref_model)
    for model in models:
        difference = (log_probs(trainer, moved, model) - expected).abs().amax(1)
        assert (difference > 1e-3).all(), difference


@pytest.mark.parametrize("trainer_class", TRAINERS)
@pytest.mark.parametrize("share", [True, False])
def test_the_point_reaches_generation(
    make_trainer, policy_checkpoint, four_points, share, trainer_class
):
    trainer = make_trainer(
        trainer_class=trainer_class,
        share_encodings=share,
        generation_kwargs={"do_sample": False},
    )
    output = rollouts(trainer, four_points)
    processor = trainer.processing_class
    model = AutoModelForImageTextToText.from_pretrained(policy_checkpoint)
    describe = PointDescriptionPipeline(model=model, processor=processor)
    texts = processor.batch_decode(output["completion_ids"], skip_special_tokens=True)
    for row, text in zip(repeated(four_points), texts):
        [expected] = describe(row["image"], points=[row["point"]], max_new_tokens=6)
        assert text.strip() == expected["description"]
    assert len(set(texts)) > 2


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "lora, train_vision", [(False, False), (False, True), (True, False)]
)
def test_sharing_changes_neither_log_probs_nor_gradients(
    make_trainer, four_points, checkpointing, lora, train_vision
):
    results = []
    for share in (True, False):
        trainer = make_trainer(
            lora=lora,
            train_vision=train_vision,
            gradient_checkpointing=checkpointing,
            share_encodings=share,
        )
        fill_adapters(trainer.model)
        torch.manual_seed(0)
        output = rollouts(trainer, four_points)
        values = log_probs(trainer, output)
        results.append(
            (output["completion_ids"], values.detach(), gradients(trainer, values))
        )
    (ids, values, grads), (plain_ids, plain_values, plain_grads) = results
    assert torch.equal(ids, plain_ids)
    torch.testing.assert_close(values, plain_values, atol=1e-4, rtol=0)
    assert_close(grads, plain_grads, 1e-3)
    reaches_vision = any(not is_of_language_model(name) for name in grads)
    assert reaches_vision == train_vision


def fill_adapters(model):
    """A fresh adapter has no gradient in one of its halves."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def is_of_language_model(name):
    return "language_model" in name or "lm_head" in name


def test_each_image_and_prompt_is_run_once(make_trainer):
    trainer = make_trainer(
        per_device_train_batch_size=2 * G, gradient_accumulation_steps=2, max_steps=1
    )
    encoded = []  # images of each pass of the backbone
    read = []  # (rows, length) of each pass of the language model
    encoded_by_reference = []
    core = trainer.model.base_model
    core.backbone.register_forward_hook(
        lambda _, args, output: encoded.append(len(args[0]))
    )
    core.language_model.register_forward_hook(
        lambda _, args, kwargs, output: read.append(
            tuple(kwargs["inputs_embeds"].shape[:2])
        ),
        with_kwargs=True,
    )
    trainer.ref_model.base_model.backbone.register_forward_hook(
        lambda *_: encoded_by_reference.append(1)
    )
    trainer.train()
    assert encoded == [3]
    assert not encoded_by_reference
    rows_of_prefill, _ = read[0]
    assert rows_of_prefill == 4
    assert read[1] == (4 * G, 1)  # then one token at a time
    # two points in each micro-batch, each with its completions in one row
    assert [rows for rows, _ in read[-2:]] == [2, 2]


OPTIONS = [
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
]


@pytest.mark.parametrize("trainer_class", TRAINERS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_trainable_parameter_moves_and_the_localizer_stays(
    make_trainer, localizer, options, trainer_class
):
    model, _ = localizer
    frozen = copy.deepcopy(model.state_dict())
    reward = LocalizerReward(*localizer, reward_scale=10.0)
    trainer = make_trainer(reward, trainer_class=trainer_class, **options)
    before = parameters(trainer)
    trainable = set()
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            trainable.add(name)
    assert any("language_model" in name for name in trainable)

    trainer.train()
    after = parameters(trainer)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == trainable
    for name, value in model.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    first = trainer.state.log_history[0]
    for name in ("distance", "pck@0.1", "pck@0.05", "refused", "distinct_2"):
        assert f"localizer/{name}" in first
    assert np.isfinite(first["loss"])


def test_with_and_without_sharing_training_goes_the_same_way(make_trainer, localizer):
    trainers = []
    for share in (True, False):
        trainer = make_trainer(
            LocalizerReward(*localizer, share_encodings=share),
            share_encodings=share,
            max_steps=3,
            # groups cut by the micro-batches
            per_device_train_batch_size=4,
            gradient_accumulation_steps=3,
        )
        trainer.train()
        trainers.append(trainer)
    shared, plain = trainers
    np.testing.assert_allclose(
        logged(shared, "reward"), logged(plain, "reward"), atol=1e-5
    )
    assert_close(parameters(shared), parameters(plain), 2e-3)


def test_evaluation_between_steps_on_one_generation_batch(
    make_trainer, four_points, localizer
):
    """Evaluation has completions of its own; the second step goes on with those of the first."""
    trainers = []
    for strategy in ("no", "steps"):
        trainer = make_trainer(
            LocalizerReward(*localizer),
            eval_dataset=four_points.select([2, 3]),
            eval_strategy=strategy,
            eval_steps=1,
            num_iterations=2,
            max_steps=2,
        )
        trainer.train()
        trainers.append(trainer)
    without, evaluated = trainers
    assert_close(parameters(without), parameters(evaluated), 1e-6)
    assert len(logged(evaluated, "eval_localizer/distance")) == 2


# at step 3 half of the updates on a generation batch are still to come; an epoch ends after step 4
SAVING = {
    "num_iterations": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "per_device_train_batch_size": 2 * G,
}


@pytest.mark.parametrize("step", [2, 3, 5, 6])
def test_resuming_continues_the_same_trajectory(make_trainer, tmp_path, step):
    make = partial(make_trainer, max_steps=10, **SAVING)
    whole = make()
    whole.train()
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert_close(parameters(resumed), parameters(whole), 1e-6)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_completions_that_were_lost_are_generated_anew(
    make_trainer, tmp_path, caplog, share
):
    make = partial(make_trainer, max_steps=4, **SAVING)
    make().train()
    [file] = (tmp_path / "checkpoint-3").glob("rollouts*")
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    resumed = make()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 4
    assert "new completions are generated" in caplog.text


def test_other_columns_reach_the_rewards(make_trainer, four_points):
    seen = []

    def reward(completions, part, point, image, **kwargs):
        sizes = [shown.size for shown in image]
        seen.extend(zip(part, point, sizes))
        return [0.0] * len(completions)

    rollouts(make_trainer(reward), four_points)
    expected = [
        (row["part"], row["point"], row["image"].size) for row in repeated(four_points)
    ]
    assert seen == expected


def generated(rows):
    """A stream that knows neither its columns nor their types."""

    def generate():
        yield from rows

    return IterableDataset.from_generator(generate)


@pytest.mark.parametrize("trainer_class", TRAINERS)
@pytest.mark.parametrize("stream", [lambda rows: rows.to_iterable_dataset(), generated])
def test_a_stream_trains_as_the_same_rows_do(
    make_trainer, four_points, localizer, stream, trainer_class
):
    trainers = []
    for dataset in (four_points, stream(four_points)):
        trainer = make_trainer(
            LocalizerReward(*localizer),
            dataset,
            trainer_class=trainer_class,
            eval_dataset=dataset,
            shuffle_dataset=False,
        )
        trainer.train()
        trainer.evaluate()
        trainers.append(trainer)
    rows, streamed = trainers
    assert logged(rows, "reward") == logged(streamed, "reward")
    assert len(logged(streamed, "eval_reward")) == 1
    assert_close(parameters(streamed), parameters(rows), 1e-6)


def test_a_built_dataset_needs_no_adapter(
    make_trainer, photo_folder, tmp_path, monkeypatch
):
    """As it was built, as `load_dataset` and [`load_points`] read it, and as a stream."""
    # `datasets` tells built folders apart by their last name alone
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = str(tmp_path / "points")
    options = BuildOptions(license="cc0-1.0", styles=("full", "terse"))
    built = build_dataset([partial(read_objects, photo_folder)], folder, options)
    assert built["train"][:] == load_dataset(folder)["train"][:]
    with_texts = [load_points(folder), load_dataset(folder, streaming=True)]
    described = []

    def reward(completions, description, part, **kwargs):
        assert set(part) <= {"nose", "left eye"}
        described.extend(description)
        return [float(len(text[0]["content"])) for text in completions]

    for dataset in with_texts:
        make_trainer(
            reward, dataset["train"], eval_dataset=dataset["validation"]
        ).train()
        assert all(described)
    points_alone = load_points(photo_folder)["train"]
    described.clear()
    make_trainer(reward, points_alone).train()
    assert set(described) == {None}


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_the_processor_may_be_left_out(
    policy_checkpoint, four_points, tmp_path, trainer_class
):
    args = make_args(tmp_path, trainer_class, max_steps=1)
    loaded = AutoModelForImageTextToText.from_pretrained(policy_checkpoint)
    for model in (policy_checkpoint, loaded):
        trainer = trainer_class(model, length_reward, args, four_points)
        trainer.train()
        trainer.save_model()
        saved = AutoProcessor.from_pretrained(tmp_path)
        assert type(saved) is type(trainer.processing_class)
        assert saved.prompt == trainer.processing_class.prompt


def test_a_missing_processor_is_named(
    policy_checkpoint, four_points, make_descriptor, tmp_path
):
    build_without = partial(
        PointGRPOTrainer,
        reward_funcs=length_reward,
        args=make_args(tmp_path, beta=0.0),
        train_dataset=four_points,
    )
    model, _ = make_descriptor()
    with pytest.raises(
        ValueError, match="does not come from a checkpoint that tells it"
    ):
        build_without(model)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="model holds no processor"):
        build_without(str(tmp_path / "model"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_user_passes_stays_as_it_is(
    policy_checkpoint, four_points, localizer, tmp_path, stream
):
    reward = LocalizerReward(*localizer, share_encodings=False)
    rewards = [reward, length_reward]
    args = make_args(tmp_path, picture_steps=1)
    peft_config = paper_lora_config(r=4, lora_alpha=8)
    dataset = four_points.to_iterable_dataset() if stream else four_points
    features = copy.deepcopy(dataset.features)
    stated = copy.deepcopy((args.to_dict(), peft_config.to_dict(), vars(reward).copy()))

    trainer = PointGRPOTrainer(
        policy_checkpoint,
        rewards,
        args,
        dataset,
        processing_class=AutoProcessor.from_pretrained(policy_checkpoint),
        peft_config=peft_config,
    )
    trainer.train()

    args_before, peft_before, reward_before = stated
    assert args.to_dict() == args_before
    assert peft_config.to_dict() == peft_before
    assert rewards == [reward, length_reward]
    assert reward.share_encodings is False
    assert vars(reward).keys() == reward_before.keys()
    assert dataset.features == features


def test_defaults_are_the_papers():
    args = PointGRPOConfig()
    assert args.num_generations == 3
    assert args.beta == 0.1
    assert args.learning_rate == 5e-6
    assert args.num_train_epochs == 3
    assert args.loss_type == "grpo"
    assert args.scale_rewards == "group"
    assert args.use_bias_correction_kl is False
    assert args.generation_batch_size == 24
    assert PointRLOOConfig().generation_batch_size == 24


def test_completions_end_with_their_first_end_token():
    completions = torch.tensor([[5, 2, 7, 2], [5, 6, 7, 8], [3, 2, 2, 2]])
    assert up_to_end(completions, [2, 3]) == [[5, 2], [5, 6, 7, 8], [3]]
    assert up_to_end(completions, []) == completions.tolist()


def with_point(dataset, point):
    """The dataset with another point in row 2."""
    points = dataset["point"][:]
    points[2] = point
    return dataset.remove_columns("point").add_column("point", points)


@pytest.mark.parametrize(
    "point", [[51.0, 10.0], [float("nan"), 3.0], [-1.0, 2.0], [1.0, 2.0, 3.0], []]
)
def test_points_off_the_image_are_refused_by_row(make_trainer, four_points, point):
    with pytest.raises(ValueError, match="row 2 of train_dataset: point"):
        make_trainer(dataset=with_point(four_points, point))


def test_points_of_transformed_rows_are_refused_when_used(make_trainer, four_points):
    wrong = with_point(four_points, [51.0, 10.0]).with_transform(lambda batch: batch)
    trainer = make_trainer(dataset=wrong)
    with pytest.raises(ValueError, match="row 2 of the dataset: point 0 is"):
        trainer.train()


def test_points_of_a_stream_are_refused_when_used(make_trainer, four_points):
    wrong = with_point(four_points, [51.0, 10.0]).to_iterable_dataset()
    trainer = make_trainer(dataset=wrong)
    with pytest.raises(ValueError, match=r"row with point \[51.0, 10.0\]: point 0 is"):
        trainer.train()


def test_datasets_without_the_columns_are_refused(make_trainer, four_points):
    with pytest.raises(ValueError, match="'point' is missing"):
        make_trainer(dataset=four_points.remove_columns("point"))
    evaluation = {"a": four_points.remove_columns("image")}
    with pytest.raises(ValueError, match=r"eval_dataset\['a'\] has the columns"):
        make_trainer(eval_dataset=evaluation)


def test_models_that_cannot_be_trained_are_refused(
    make_trainer, localizer, make_descriptor
):
    with pytest.raises(
        ValueError, match="must be a Point Descriptor, got a point_localizer"
    ):
        make_trainer(model=localizer[0])
    with pytest.raises(ValueError, match="cast_lm_head_to_fp32=True cannot work"):
        make_trainer(cast_lm_head_to_fp32=True)
    with pytest.raises(ValueError, match="save the model"):
        make_trainer(model=make_descriptor()[0])


def test_arguments_of_another_trainer_are_refused(policy_checkpoint, four_points):
    with pytest.raises(
        TypeError, match="args must be a PointRLOOConfig, got PointGRPOConfig"
    ):
        PointRLOOTrainer(
            policy_checkpoint, length_reward, PointGRPOConfig(), four_points
        )


def test_adapters_before_the_language_model_are_refused(
    policy_checkpoint, four_points, tmp_path
):
    with pytest.raises(
        ValueError, match="precedes the language model but would be trained"
    ):
        PointGRPOTrainer(
            policy_checkpoint,
            length_reward,
            make_args(tmp_path),
            four_points,
            peft_config=paper_lora_config(target_modules=["q_proj"]),
        )


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_chat_template_kwargs_reach_the_prompt(make_trainer, trainer_class):
    trainer = make_trainer(
        trainer_class=trainer_class, chat_template_kwargs={"thoughts": False}
    )
    processor = trainer.processing_class
    processor.chat_template += "{%- if thoughts is false -%}no thoughts{%- endif -%}"
    prompt_ids, *_ = trainer._tokenize_prompts([None, None])
    assert len(prompt_ids) == 2
    assert processor.decode(prompt_ids[0]).endswith("no thoughts")


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_suppressed_tokens_are_the_users_and_the_placeholders(
    make_trainer, four_points, trainer_class
):
    forbidden = list(range(3, 250))
    trainer = make_trainer(
        trainer_class=trainer_class, generation_kwargs={"suppress_tokens": forbidden}
    )
    processor = trainer.processing_class
    forbidden += [processor.image_token_id, processor.region_token_id]
    sampled = set(rollouts(trainer, four_points)["completion_ids"].flatten().tolist())
    assert sampled and sampled.isdisjoint(forbidden)


@pytest.mark.parametrize("trainer_class", TRAINERS)
@pytest.mark.parametrize("stream", [False, True])
def test_fewer_points_than_an_update_takes_are_refused(
    make_trainer, four_points, stream, trainer_class
):
    dataset = four_points.to_iterable_dataset() if stream else four_points
    with pytest.raises(ValueError, match="has 4 points but one update takes 6"):
        make_trainer(
            dataset=dataset,
            trainer_class=trainer_class,
            per_device_train_batch_size=2 * G,
            gradient_accumulation_steps=3,
        )


@pytest.mark.parametrize("trainer_class", TRAINERS)
@pytest.mark.parametrize("stream", [False, True])
def test_columns_that_nobody_names_can_be_removed(
    make_trainer, four_points, stream, trainer_class
):
    seen = []

    def reward(completion_ids, part, **kwargs):
        seen.append((part, set(kwargs)))
        return length_reward(completion_ids)

    rows = four_points.add_column("note", ["a"] * 4)
    make_trainer(
        reward,
        rows.to_iterable_dataset() if stream else rows,
        trainer_class=trainer_class,
        remove_unused_columns=True,
        max_steps=1,
    ).train()
    [(parts, others)] = seen
    assert sorted(parts) == sorted(repeated(four_points["part"]))
    assert {"image", "point"} <= others
    assert "note" not in others


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_completions_end_with_the_end_tokens_of_generation(
    make_trainer, four_points, trainer_class
):
    ends = list(range(100, 300))
    trainer = make_trainer(
        trainer_class=trainer_class, generation_kwargs={"eos_token_id": ends}
    )
    output = rollouts(trainer, four_points)
    lengths = output["completion_mask"].sum(1)
    is_end = torch.isin(output["completion_ids"], torch.tensor(ends))
    assert (lengths < trainer.max_completion_length).any()
    for row, length in zip(is_end, lengths):
        assert not row[: length - 1].any()


LOSSES = [
    {"loss_type": "bnpo"},
    {"loss_type": "dr_grpo"},
    {"loss_type": "dapo"},
    {"loss_type": "cispo"},
    {"loss_type": "sapo"},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "vespo"},
    {"top_entropy_quantile": 0.2, "entropy_coef": 0.1},
    {"mask_truncated_completions": True, "scale_rewards": "batch"},
    {"delta": 1.5, "off_policy_mask_threshold": 0.5, "scale_rewards": False},
    {"sync_ref_model": True, "ref_model_sync_steps": 1, "pad_to_multiple_of": 64},
]


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_losses_of_trl_are_the_same_with_and_without_sharing(
    make_trainer, localizer, options
):
    """The second step is taken on completions from before the first."""
    losses = []
    for share in (True, False):
        trainer = make_trainer(
            LocalizerReward(*localizer),
            share_encodings=share,
            num_iterations=2,
            max_completion_length=3,
            **options,
        )
        trainer.train()
        losses.append(logged(trainer, "loss"))
    shared, plain = losses
    assert len(shared) == 2
    assert np.isfinite(shared).all()
    np.testing.assert_allclose(shared, plain, atol=1e-4)


@pytest.mark.parametrize(
    "make_config",
    [
        partial(PromptTuningConfig, num_virtual_tokens=3),
        partial(PrefixTuningConfig, num_virtual_tokens=3),
    ],
)
def test_virtual_tokens_are_trained_alike_with_and_without_sharing(
    policy_checkpoint, four_points, tmp_path, make_config
):
    logs = []
    for share in (True, False):
        trainer = PointGRPOTrainer(
            policy_checkpoint,
            length_reward,
            make_args(tmp_path, share_encodings=share),
            four_points,
            peft_config=make_config(task_type="CAUSAL_LM"),
        )
        trainer.train()
        logs.append((logged(trainer, "kl"), logged(trainer, "loss")))
    np.testing.assert_allclose(*logs, atol=1e-4)


def test_several_rewards_some_of_them_async(make_trainer, localizer):
    async def length(completion_ids, **kwargs):
        return [float(len(ids)) for ids in completion_ids]

    def ears_only(part, **kwargs):
        return [1.0 if name == "ear" else None for name in part]

    trainer = make_trainer(
        [LocalizerReward(*localizer), length, ears_only],
        reward_weights=[1.0, 0.5, 2.0],
        multi_objective_aggregation="normalize_then_sum",
        max_steps=1,
    )
    trainer.train()
    first = trainer.state.log_history[0]
    for name in ("localizer", "length", "ears_only"):
        assert np.isfinite(first[f"rewards/{name}/mean"])


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_logged_completions_come_with_images_and_points(
    make_trainer, localizer, tmp_path, trainer_class
):
    trainer = make_trainer(
        LocalizerReward(*localizer),
        trainer_class=trainer_class,
        log_completions=True,
        max_steps=1,
    )
    trainer.train()
    if trainer_class is PointGRPOTrainer:  # RLOO of TRL writes no tables
        table = pd.read_parquet(tmp_path / "completions/completions_00001.parquet")
        assert len(table) == 4 * G
        assert {"point", "localizer_found", "completion", "advantage"} <= set(table)
    shown = [images[0].size for images in trainer._logs["images"]]
    assert len(shown) == 4 * G
    assert set(shown) == {(96, 64), (50, 90), (120, 40)}


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_a_saved_adapter_is_trained_on(make_trainer, tmp_path, trainer_class):
    first = make_trainer(lora=True, trainer_class=trainer_class)
    fill_adapters(first.model)
    first.save_model(str(tmp_path / "adapter"))
    trainer = trainer_class(
        str(tmp_path / "adapter"),
        length_reward,
        make_args(tmp_path, trainer_class, max_steps=1),
        first.train_dataset,
    )
    before = parameters(trainer)
    for name, value in parameters(first).items():
        assert torch.equal(before[name], value), name
    trainer.train()
    after = parameters(trainer)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(".default." in name for name in moved)
    # the reference is the adapter as it was
    assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-6)


def test_a_model_saved_alone_keeps_no_completions(make_trainer, tmp_path):
    """They are for going on with the run, which such a checkpoint cannot."""
    make_trainer(
        num_iterations=2,
        max_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_only_model=True,
    ).train()
    saved = {file.name for file in (tmp_path / "checkpoint-1").iterdir()}
    assert "model.safetensors" in saved
    assert not any("rollouts" in name for name in saved)


def test_an_adapter_without_a_processor_takes_its_base_models(
    make_trainer, four_points, tmp_path
):
    make_trainer(lora=True).model.save_pretrained(tmp_path / "adapter")
    trainer = PointGRPOTrainer(
        str(tmp_path / "adapter"), length_reward, make_args(tmp_path), four_points
    )
    assert trainer.processing_class.region_token == "<region>"


@pytest.mark.parametrize("trainer_class", TRAINERS)
def test_errors_about_a_call_name_the_class(trainer_class):
    for arguments, options in (((), {}), ((None, None), {"nonsense": 1})):
        with pytest.raises(TypeError, match=f"{trainer_class.__name__}.__init__"):
            trainer_class(*arguments, **options)


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_turns_are_refused(policy_checkpoint, four_points, tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} cannot work: a description is one"):
        PointGRPOTrainer(
            policy_checkpoint,
            length_reward,
            make_args(tmp_path),
            four_points,
            **{name: [print]},
        )


def test_a_row_is_read_once_for_an_update(make_trainer, four_points):
    read = []

    def count(batch):
        read.extend(batch["part"])
        return batch

    trainer = make_trainer(
        dataset=four_points.with_transform(count),
        per_device_train_batch_size=2 * G,
        gradient_accumulation_steps=2,
        num_iterations=2,
        max_steps=4,
    )
    read.clear()
    trainer.train()
    assert sorted(read) == sorted(repeated(four_points["part"], 2))


COLORS = ["red", "green", "blue", "yellow", "white", "black"]


@pytest.mark.slow
def test_a_preferred_word_is_learned(policy_checkpoint, four_points, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(policy_checkpoint)
    processor = AutoProcessor.from_pretrained(policy_checkpoint)
    teach_colors(model, processor, four_points[0])
    colors = tmp_path / "colors"
    model.save_pretrained(colors)
    processor.save_pretrained(colors)

    def reward(completions, **kwargs):
        return [
            float(completion[0]["content"].split() == ["red"])
            for completion in completions
        ]

    trainer = build(
        str(colors),
        four_points,
        tmp_path,
        reward,
        num_generations=8,
        per_device_train_batch_size=32,
        learning_rate=3e-3,
        max_steps=30,
        beta=0.01,
    )
    trainer.train()
    rewards = logged(trainer, "reward")
    assert rewards[0] < 0.5 and np.mean(rewards[-3:]) > 0.9, rewards


def teach_colors(model, processor, row):
    """Until the model says one color as well as another."""
    optimizer = torch.optim.AdamW(model.model.language_model.parameters(), lr=1e-2)
    answers = repeated([processor.render(color) for color in COLORS], 2)
    inputs = processor(
        images=row["image"],
        points=[row["point"]] * len(answers),
        text=answers,
        padding_side="right",
    )
    prompt = processor.tokenize([processor.render()])["input_ids"]  # (1, length)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, : prompt.shape[1]] = -100
    for _ in range(40):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
