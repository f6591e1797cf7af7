"""Options of TRL and transformers that GRPO and RLOO of a Point Descriptor refuse, before anything is loaded."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig
from transformers.generation import GenerationMode

# what TRL itself looks at in the first step only
CHOICES = {
    "loss_type": (
        "grpo",
        "bnpo",
        "dr_grpo",
        "dapo",
        "cispo",
        "sapo",
        "luspo",
        "vespo",
    ),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
}
REFUSED = {
    "use_vllm": "vLLM takes token ids and images only, so the point would not reach the policy",
    "use_liger_kernel": "Liger knows no Point Descriptor and would change nothing",
}
REFUSED_IN_GENERATION = {
    "num_return_sequences": "num_generations says how many completions a point gets",
    "return_dict_in_generate": "the trainer takes the token ids alone",
    "stop_strings": "TRL tells the end of a completion by its end token; eos_token_id may name several",
    "token_healing": "it would change the prompt, whose log-probs are taken as it was",
}
MODES = (
    GenerationMode.SAMPLE,
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.BEAM_SAMPLE,
    GenerationMode.BEAM_SEARCH,
)


def check_options(args: Any) -> None:
    """Raises ValueError naming an option that could not work.

    Args:
        args: a config of TRL.
    """
    for name, reason in REFUSED.items():
        if getattr(args, name):
            raise ValueError(f"{name}=True cannot work: {reason}")


def check_choices(args: Any) -> None:
    """Raises ValueError naming an option whose value is none of those that TRL knows.

    Args:
        args: a config of TRL, which has replaced values by those that they stand for.
    """
    for name, choices in CHOICES.items():
        value = getattr(args, name, choices[0])  # RLOO has none of them
        if value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def check_generation(generation_kwargs: dict[str, Any] | None) -> None:
    """Raises ValueError naming an option of generation that could not work, or that transformers does not know."""
    options = generation_kwargs or {}
    known = GenerationConfig()
    for name, value in options.items():
        if not hasattr(known, name):
            raise ValueError(
                f"generation_kwargs: {name!r} is no field of transformers' GenerationConfig"
            )
        is_off = value is None or value is False
        is_one = name == "num_return_sequences" and value == 1
        if name in REFUSED_IN_GENERATION and not is_off and not is_one:
            raise ValueError(
                f"generation_kwargs: {name}={value!r} cannot work: {REFUSED_IN_GENERATION[name]}"
            )
    mode = GenerationConfig(**{"do_sample": True, **options}).get_generation_mode()
    if mode not in MODES:
        raise ValueError(
            f"generation_kwargs ask for {mode.value}, which takes one completion at a time or code from the Hub: "
            f"leave out what turns it on, among {sorted(options)}"
        )
