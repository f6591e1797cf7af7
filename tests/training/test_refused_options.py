"""Options that the supervised trainers cannot follow."""

import pytest
from transformers import TrainingArguments
from trl import SFTConfig

from hf_talking_points.training.arguments import (
    PointDescriptorTrainingArguments,
    PointLocalizerTrainingArguments,
)
from hf_talking_points.training.refused_options import check_options
from hf_talking_points.training.triplet_trainer import copied

PLAIN = {"use_cpu": True, "report_to": "none"}
ALL = [
    TrainingArguments,
    SFTConfig,
    PointDescriptorTrainingArguments,
    PointLocalizerTrainingArguments,
]
OF_ALL = [
    {"train_sampling_strategy": "group_by_length"},
    {"use_liger_kernel": True},
    {"eval_use_gather_object": True},
    {"accelerator_config": {"dispatch_batches": True}},
]
OF_SFT = [
    {"packing": True},
    {"eval_packing": True},
    {"padding_free": True},
    {"completion_only_loss": False},
    {"assistant_only_loss": True},
    {"truncation_mode": "keep_end"},
    {"chat_template_path": "template.jinja"},
    {"pad_token": "<pad>"},
    {"shuffle_dataset": True},
    {"dataset_num_proc": 2},
    {"dataset_kwargs": {"skip_prepare_dataset": True}},
    {"dataset_text_field": "description"},
]


@pytest.mark.parametrize("arguments", ALL)
def test_the_defaults_are_followed(arguments, tmp_path):
    check_options(arguments(output_dir=str(tmp_path), **PLAIN))


@pytest.mark.parametrize("arguments", ALL)
@pytest.mark.parametrize("option", OF_ALL)
def test_what_no_trainer_can_follow_is_refused_by_name(arguments, option, tmp_path):
    [name] = option
    args = arguments(output_dir=str(tmp_path), **PLAIN, **option)
    with pytest.raises(ValueError, match=name):
        copied(args)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("arguments", [SFTConfig, PointDescriptorTrainingArguments])
@pytest.mark.parametrize("option", OF_SFT)
def test_what_sft_alone_offers_is_refused_by_name(arguments, option, tmp_path):
    [name] = option
    args = arguments(output_dir=str(tmp_path), **PLAIN, **option)
    with pytest.raises(ValueError, match=f"{name}="):
        copied(args)
