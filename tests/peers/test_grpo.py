"""GRPO and RLOO."""

import copy

import pytest
import torch
from datasets import Dataset, Image, IterableDataset
from grpo_runs import G, build, length_reward, logged, parameters
from peer_models import DESCRIPTOR, load, saved
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.utils import is_liger_kernel_available
from trl import GRPOConfig

from hf_talking_points import PointGRPOTrainer, PointRLOOTrainer

pytestmark = pytest.mark.slow
TRAINERS = {"GRPO": PointGRPOTrainer, "RLOO": PointRLOOTrainer}
both_trainers = pytest.mark.parametrize("kind", TRAINERS)
only_grpo = pytest.mark.parametrize("kind", ["GRPO"])
LOSSES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


def named(options):
    """Each entry by what a user would write."""
    names = {}
    for entry in options:
        words = [f"{name}={value!r}" for name, value in entry.items()]
        names[", ".join(words)] = entry
    return names


OPTIONS = named(
    [
        {"beta": 0.0},
        {"beta": 0.2},
        {"num_iterations": 2},
        {"steps_per_generation": 2, "per_device_train_batch_size": 2 * G},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2 * G},
        {"generation_batch_size": 8 * G, "per_device_train_batch_size": 4 * G},
        {"epsilon": 0.1, "epsilon_high": 0.3},
        {"mask_truncated_completions": True},
        {"sync_ref_model": True, "ref_model_sync_steps": 1},
        {"log_completions": True, "num_completions_to_print": 2},
        {"log_completions": True, "log_unique_prompts": True},
        {"disable_dropout": True},
        {"shuffle_dataset": False},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.01},
        {"repetition_penalty": 1.2},
        {"generation_kwargs": {"suppress_tokens": [5, 6]}},
        {"generation_kwargs": {"num_beams": 2}},
        {"cache_implementation": "static"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"train_vision": True},
        {"share_encodings": False},
        {"gradient_checkpointing": True},
        {"bf16": True},
        {"remove_unused_columns": True},
        {"num_generations_eval": 2, "eval_strategy": "steps", "eval_steps": 1},
        {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2},
        {"model_init_kwargs": {"attn_implementation": "eager"}},
        {"pad_to_multiple_of": 8},
        {"dataloader_num_workers": 1},
        {"neftune_noise_alpha": 5.0},
        {"lr_scheduler_type": "cosine", "warmup_steps": 1},
        {"optim": "adafactor"},
        {"max_grad_norm": 0.1},
    ]
)
OF_GRPO = named(
    [
        {"scale_rewards": "group"},
        {"scale_rewards": "batch"},
        {"scale_rewards": "none"},
        {"importance_sampling_level": "sequence"},
        {"top_entropy_quantile": 0.5},
        {"entropy_coef": 0.01},
        {"use_adaptive_entropy": True},
        {"delta": 2.0},
        {"use_bias_correction_kl": True, "beta": 0.1},
        {"off_policy_mask_threshold": 0.5},
    ]
)
OF_RLOO = named(
    [
        {"normalize_advantages": True},
        {"reward_clip_range": (-1.0, 1.0)},
    ]
)
REFUSED = {
    "use_vllm": (True, "use_vllm"),
    "use_transformers_continuous_batching": (True, "continuous_batching"),
}


@pytest.fixture(scope="module")
def policy(make_pair, tmp_path_factory):
    """Folder of a descriptor and its processor."""
    return saved(*make_pair(DESCRIPTOR), tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def points(random_image):
    """Eight points on two images."""
    images = [random_image(0), random_image(1, 50, 90)]
    rows = []
    for number in range(8):
        row = {"image": images[number % 2], "point": [5.0 * number + 3, 20.0]}
        rows.append({**row, "part": f"part {number}"})
    return Dataset.from_list(rows).cast_column("image", Image())


@pytest.fixture
def make_trainer(policy, points, tmp_path):
    """Makes a trainer of a kind; options are those of its arguments."""

    def make(kind, dataset=points, **options):
        fields = {"trainer_class": TRAINERS[kind], "eval_dataset": points, **options}
        return build(policy, dataset, tmp_path, **fields)

    return make


def trained(trainer):
    """Trains; the loss is finite, and weights of the language model move."""
    before = parameters(trainer)
    trainer.train()
    after = parameters(trainer)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved
    losses = logged(trainer, "loss")
    assert losses and all(abs(loss) < 1e4 for loss in losses)
    return trainer


@both_trainers
@pytest.mark.parametrize("option", OPTIONS)
def test_option(kind, option, make_trainer):
    """`{option}`."""
    trained(make_trainer(kind, **OPTIONS[option]))


@only_grpo
@pytest.mark.parametrize("loss", LOSSES)
def test_loss(kind, loss, make_trainer):
    """`loss_type="{loss}"`."""
    level = "sequence" if loss == "luspo" else "token"
    trained(make_trainer(kind, loss_type=loss, importance_sampling_level=level))


@only_grpo
@pytest.mark.parametrize("option", OF_GRPO)
def test_option_of_grpo(kind, option, make_trainer):
    """`{option}`."""
    trained(make_trainer(kind, **OF_GRPO[option]))


@pytest.mark.parametrize("kind", ["RLOO"])
@pytest.mark.parametrize("option", OF_RLOO)
def test_option_of_rloo(kind, option, make_trainer):
    """`{option}`."""
    trained(make_trainer(kind, **OF_RLOO[option]))


@both_trainers
@pytest.mark.parametrize("option", REFUSED)
def test_refused(kind, option, make_trainer, refused):
    """`{option}`."""
    value, message = REFUSED[option]
    with refused(ValueError, message):
        make_trainer(kind, **{option: value}).train()


@both_trainers
def test_liger(kind, make_trainer, refused):
    """`use_liger_kernel=True`."""
    if is_liger_kernel_available():
        trained(make_trainer(kind, use_liger_kernel=True))
        return
    with refused((ImportError, ValueError), "[Ll]iger"):
        make_trainer(kind, use_liger_kernel=True).train()


@only_grpo
@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory"])
def test_further_turns(kind, name, policy, points, tmp_path, refused):
    """`{name}`."""
    values = {
        "tools": [len],
        "rollout_func": lambda *args, **kwargs: {},
        "environment_factory": object,
    }
    with refused(ValueError, name):
        TRAINERS[kind](
            model=policy,
            reward_funcs=length_reward,
            train_dataset=points,
            args=TRAINERS[kind].config_class(output_dir=str(tmp_path)),
            **{name: values[name]},
        )


@both_trainers
def test_several_rewards(kind, make_trainer):
    """Several rewards, `reward_weights`, and rewards that skip rows (`None`)."""

    def sometimes(completion_ids, **kwargs):
        return [float(len(ids)) if len(ids) % 2 else None for ids in completion_ids]

    rewards = [length_reward, sometimes]
    trainer = trained(make_trainer(kind, reward=rewards, reward_weights=[1.0, 0.5]))
    assert logged(trainer, "rewards/length_reward/mean")


@only_grpo
def test_multi_objective(kind, make_trainer):
    """`multi_objective_aggregation="normalize_then_sum"`."""
    rewards = [length_reward, lambda completion_ids, **kwargs: [1.0] * G * 4]
    rewards[1].__name__ = "constant"
    option = {"multi_objective_aggregation": "normalize_then_sum"}
    trained(make_trainer(kind, reward=rewards, **option))


@both_trainers
def test_async_reward(kind, make_trainer):
    """An asynchronous reward."""

    async def later(completion_ids, **kwargs):
        return [float(sum(ids) % 7) for ids in completion_ids]

    trained(make_trainer(kind, reward=later))


@both_trainers
def test_what_rewards_get(kind, make_trainer):
    """Rewards get prompts, completions, ids, further columns, `trainer_state`, `log_extra` and `log_metric`."""
    seen = set()

    def reward(prompts, completions, completion_ids, part, **kwargs):
        seen.update(kwargs)
        assert len(prompts) == len(completions) == len(part) == len(completion_ids)
        kwargs["log_metric"]("mine", 1.0)
        return length_reward(completion_ids)

    trainer = trained(make_trainer(kind, reward=reward))
    assert {"trainer_state", "log_extra", "log_metric", "image", "point"} <= seen
    assert any("mine" in name for entry in trainer.state.log_history for name in entry)


SOURCES = ["IterableDataset", "undecoded images", "torch format", "numpy format"]


@both_trainers
@pytest.mark.parametrize("source", SOURCES)
def test_sources(kind, source, make_trainer, points):
    """Rows from: {source}."""
    sources = {
        "IterableDataset": points.to_iterable_dataset(),
        "undecoded images": points.cast_column("image", Image(decode=False)),
        "torch format": points.with_format("torch"),
        "numpy format": points.with_format("numpy"),
    }
    assert source != "IterableDataset" or isinstance(sources[source], IterableDataset)
    trained(make_trainer(kind, dataset=sources[source]))


@both_trainers
def test_too_few_points(kind, make_trainer, points, refused):
    """Fewer points than an update needs."""
    with refused(ValueError, "2.*4|4.*2"):
        make_trainer(kind, dataset=points.select(range(2)))


@both_trainers
def test_lora(kind, make_trainer, tmp_path):
    """`peft_config`, beta by the model without adapter, saved and loaded."""
    trainer = trained(make_trainer(kind, lora=True, beta=0.1))
    assert all(
        "lora" in name
        for name, value in trainer.model.named_parameters()
        if value.requires_grad
    )
    trainer.save_model(str(tmp_path / "adapter"))
    base = load(DESCRIPTOR, trainer.model.get_base_model().config._name_or_path)
    assert PeftModel.from_pretrained(base, str(tmp_path / "adapter"))


@both_trainers
def test_adapter_folder(kind, make_trainer, policy, tmp_path):
    """`model`: the folder of an adapter, which is trained on."""
    targets = r".*language_model.*\.(q|v)_proj"
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(load(DESCRIPTOR, policy), config)
    adapted.save_pretrained(tmp_path / "adapter")
    trained(make_trainer(kind, model=str(tmp_path / "adapter")))


@both_trainers
def test_resuming(kind, make_trainer, tmp_path):
    """`resume_from_checkpoint`: the weights of a run without a break."""
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trained(make_trainer(kind, **options))
    expected = parameters(whole)
    checkpoint = str(tmp_path / "checkpoint-2")
    resumed = make_trainer(kind, **options)
    resumed.train(resume_from_checkpoint=checkpoint)
    for name, value in parameters(resumed).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


@both_trainers
def test_best_model(kind, make_trainer):
    """`load_best_model_at_end` and `EarlyStoppingCallback` on the reward of an evaluation."""
    trainer = make_trainer(
        kind,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        max_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
        greater_is_better=True,
    )
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1))
    trainer.train()
    assert trainer.state.best_model_checkpoint is not None


@both_trainers
def test_callbacks(kind, make_trainer):
    """Callbacks, which see every log."""
    seen = []

    class Watch(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(logs)

    trainer = make_trainer(kind)
    trainer.add_callback(Watch())
    trained(trainer)
    assert any("reward" in logs for logs in seen)


@both_trainers
def test_evaluation(kind, make_trainer):
    """`evaluate`: the reward of other points, weights unchanged."""
    trainer = make_trainer(kind)
    before = copy.deepcopy(trainer.model.state_dict())
    metrics = trainer.evaluate()
    assert "eval_reward" in metrics
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]), name


@only_grpo
def test_plain_config(kind, policy, points, tmp_path, refused):
    """TRL's own `GRPOConfig` instead of `PointGRPOConfig`."""
    with refused(TypeError, "PointGRPOConfig"):
        TRAINERS[kind](
            model=policy,
            reward_funcs=length_reward,
            train_dataset=points,
            args=GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False),
        )
