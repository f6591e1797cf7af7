"""Options that GRPO and RLOO refuse by name before training, and those that go on to generation."""

import pytest
from transformers import LlamaConfig, MixtralConfig

from hf_talking_points import PointGRPOConfig, PointRLOOConfig
from hf_talking_points.training.refused_options import check_router
from hf_talking_points.training.rollout_options import check_generation

CONFIGS = [PointGRPOConfig, PointRLOOConfig]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "name, reason",
    [
        ("use_vllm", "the point would not reach the policy"),
        ("use_liger_kernel", "Liger knows no Point Descriptor"),
    ],
)
def test_options_are_refused_with_their_reason(config, name, reason):
    with pytest.raises(ValueError, match=f"{name}=True cannot work: .*{reason}"):
        config(**{name: True})


@pytest.mark.parametrize(
    "name",
    [
        "loss_type",
        "importance_sampling_level",
        "scale_rewards",
        "multi_objective_aggregation",
    ],
)
def test_unknown_values_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be one of .*got 'nonsense'"):
        PointGRPOConfig(**{name: "nonsense"})


def test_values_that_stand_for_others_are_known():
    assert PointGRPOConfig(scale_rewards=False).scale_rewards == "none"
    assert PointGRPOConfig(scale_rewards=True).scale_rewards == "group"


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_return_sequences": 2}, "num_generations says how many"),
        ({"return_dict_in_generate": True}, "the token ids alone"),
        ({"stop_strings": ["."]}, "eos_token_id may name several"),
        ({"token_healing": True}, "would change the prompt"),
        ({"temprature": 0.5}, "'temprature' is no field"),
        ({"prompt_lookup_num_tokens": 2}, "ask for assisted_generation"),
        ({"dola_layers": "low"}, "ask for dola_generation"),
        ({"num_beams": 2, "num_beam_groups": 2}, "ask for group_beam_search"),
        ({"force_words_ids": [[5]]}, "ask for constrained_beam_search"),
    ],
    ids=str,
)
def test_generation_that_cannot_work_is_refused(config, options, message):
    with pytest.raises(ValueError, match=f"generation_kwargs.*{message}"):
        config(generation_kwargs=options)


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"num_return_sequences": 1, "return_dict_in_generate": False},
        {"num_beams": 2},
        {"do_sample": False},
        {"stop_strings": None, "eos_token_id": [2, 5], "min_new_tokens": 3},
    ],
    ids=str,
)
def test_other_generation_goes_on(options):
    check_generation(options)


def test_a_load_balancing_loss_is_refused():
    with pytest.raises(ValueError, match="router_aux_loss_coef=0.001 cannot work"):
        check_router(MixtralConfig(), None)
    with pytest.raises(ValueError, match="output_router_logits=False"):
        check_router(MixtralConfig(output_router_logits=True), 0.0)
    check_router(MixtralConfig(), 0.0)
    check_router(LlamaConfig(), None)
