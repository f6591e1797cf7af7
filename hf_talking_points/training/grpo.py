"""Reinforcement learning of descriptions where points are labeled but text is not (section 3.3 of the paper), on TRL's
trainers."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from accelerate.utils import gather_object, is_peft_model
from datasets import Dataset
from peft import PeftConfig, PeftModel
from PIL import Image
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    TrainerCallback,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import PROCESSOR_NAME, find_adapter_config_file, has_file
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import create_model_from_path

from ..files import whole_file
from ..models.modeling_point_descriptor import PointDescriptorForConditionalGeneration
from ..models.processing_talking_points import PointDescriptorProcessor
from ..rewards import LocalizerReward
from ..visualization import draw_round_trip
from .fused_head import completions_only, has_virtual_tokens
from .hub_trainer import HubTrainerMixin
from .pictures import report_picture, save_picture
from .point_rows import (
    COLUMNS,
    RepeatedRows,
    Row,
    Rows,
    check_count,
    check_rows,
    find_point,
    named_datasets,
    open_images,
    without_decoding,
)
from .processors import processor_of
from .refused_options import check_router
from .rollout_options import check_choices, check_generation, check_options
from .rollouts import (
    Batch,
    EpochSampler,
    Sample,
    image_inputs,
    images_to_encode,
    keep_groups_together,
    stacked_points,
)

if TYPE_CHECKING:
    from trl import GRPOConfig as ConfigBase
else:
    ConfigBase = (
        object  # a mixin: the config that it is mixed into brings the other fields
    )

logger = logging.getLogger(__name__)

Reward: TypeAlias = "str | PreTrainedModel | Callable[..., list[float | None]]"


@dataclass
class _PointConfig(ConfigBase):
    num_generations: int = field(
        default=3, metadata={"help": "completions for each point"}
    )
    beta: float = field(
        default=0.1,
        metadata={"help": "weight of the KL divergence from the reference model"},
    )
    learning_rate: float = field(
        default=5e-6, metadata={"help": "initial learning rate"}
    )
    num_train_epochs: float = field(
        default=3.0, metadata={"help": "passes over the dataset"}
    )
    max_completion_length: int = field(
        default=128, metadata={"help": "tokens of a description"}
    )
    per_device_train_batch_size: int = field(
        default=24, metadata={"help": "completions of one forward and backward pass"}
    )
    per_device_eval_batch_size: int = field(
        default=24, metadata={"help": "completions of one evaluation batch"}
    )
    bf16: bool | None = field(
        default=None,
        metadata={
            "help": "train in bfloat16; if not given, where there is an accelerator"
        },
    )
    train_vision: bool = field(
        default=False, metadata={"help": "also train what precedes the language model"}
    )
    share_encodings: bool = field(
        default=True,
        metadata={"help": "completions of one point share its encoding and prompt"},
    )
    picture_steps: int = field(
        default=0,
        metadata={
            "help": "draw the completions of one point every so many steps; 0: never"
        },
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.bf16 is None and not torch.accelerator.is_available():
            self.bf16 = False  # most CPUs are several times slower with it
        super().__post_init__()
        check_choices(self)
        check_generation(self.generation_kwargs)


@dataclass
class PointGRPOConfig(_PointConfig, GRPOConfig):
    """`GRPOConfig` with the paper's defaults: 3 completions a prompt, beta 0.1, learning rate 5e-6, 3 epochs, rewards
    normalized within their group; 8 prompts a step. Without an accelerator `bf16` is False unless it is given.

    Args:
        train_vision (`bool`): also trains what precedes the language model.
        share_encodings (`bool`): completions of one point share its encoding, the prefill of generation, and their
            prompt in the log-prob passes. False does everything once for each completion, as TRL does; the results are
            the same. [`LocalizerReward`] has a `share_encodings` of its own.
        picture_steps (`int`): every so many steps the completions of one point are drawn, with what the first
            [`LocalizerReward`] makes of them, as `_pictures/round_trip_*.png` in `output_dir`, and shown in
            TensorBoard and Trackio where they are reported to; 0 draws none.
    """

    loss_type: str = field(default="grpo", metadata={"help": "TRL's loss_type"})
    use_bias_correction_kl: bool = field(
        default=False, metadata={"help": "importance weights on the KL divergence"}
    )


@dataclass
class PointRLOOConfig(_PointConfig, RLOOConfig):
    """`RLOOConfig` with the fields and batch of [`PointGRPOConfig`]."""


def copy_of(args: Any) -> Any:
    """Arguments in which TRL may set fields, as it does for streams, without changing the user's."""
    args = copy.copy(args)
    args.accelerator_config = copy.copy(args.accelerator_config)
    return args


def load_adapter(
    adapter: str,
    args: PointGRPOConfig | PointRLOOConfig,
    quantization_config: Any,
) -> PeftModel:
    """The base model of a saved adapter with the adapter, which is trained on.

    Args:
        adapter (`str`): its folder or Hub id.
        args: with the options of loading, `model_init_kwargs`.
        quantization_config (*optional*): of the base model.
    """
    options = {"trust_remote_code": args.trust_remote_code}
    options |= args.model_init_kwargs or {}
    revision = options.pop("revision", None)
    config = PeftConfig.from_pretrained(adapter, revision=revision)
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    if args.world_size > 1:
        options["device_map"] = None  # each process has the whole model
    base = create_model_from_path(
        config.base_model_name_or_path, revision=config.revision, **options
    )
    return PeftModel.from_pretrained(
        base, adapter, revision=revision, is_trainable=True
    )


def check_policy(config: PreTrainedConfig, args: Any, has_adapter: bool) -> None:
    """Raises ValueError for the config of a model that is no Point Descriptor, has no reference that could be loaded,
    or cannot be trained with the arguments."""
    if config.model_type != "point_descriptor":
        raise ValueError(f"model must be a Point Descriptor, got a {config.model_type}")
    if args.beta and not has_adapter and not config._name_or_path:
        raise ValueError(
            "beta > 0 loads the reference model from where the model came from: "
            "save the model, and load or pass its path"
        )
    check_router(config.get_text_config(), args.router_aux_loss_coef)
    casts_head = getattr(args, "cast_lm_head_to_fp32", False)  # RLOO has no such option
    if casts_head and config.tie_word_embeddings:
        raise ValueError(
            "cast_lm_head_to_fp32=True cannot work: the head of this model is its token embedding "
            "(tie_word_embeddings), for which TRL has no such cast"
        )


def refuse_turns(tools: Any, rollout_func: Any, environment_factory: Any) -> None:
    """Raises ValueError naming what would make a description more than one answer to the processor's prompt."""
    given = {
        "tools": tools,
        "rollout_func": rollout_func,
        "environment_factory": environment_factory,
    }
    for name, value in given.items():
        if value:
            raise ValueError(
                f"{name} cannot work: a description is one answer to the processor's prompt about a point, and TRL "
                "hands neither image nor point on to further turns or to a rollout function"
            )


def check_only_language_model_is_trained(
    descriptor: PointDescriptorForConditionalGeneration,
) -> None:
    """Raises ValueError naming a parameter that precedes the language model and would be trained."""
    for name, parameter in descriptor.base_model.named_parameters():
        if parameter.requires_grad and not name.startswith("language_model."):
            raise ValueError(
                f"{name} precedes the language model but would be trained: adapt the language model alone, as "
                "paper_lora_config() does, or set train_vision=True"
            )


def up_to_end(
    completions: torch.Tensor, eos_token_ids: Sequence[int]
) -> list[list[int]]:
    """Token ids of generated completions, tensor of shape `(rows, length)`, each up to its first end token."""
    end_tokens = torch.tensor(
        eos_token_ids, device=completions.device, dtype=torch.long
    )
    is_end = torch.isin(completions, end_tokens)
    first_end = is_end.int().argmax(1)
    lengths = torch.where(is_end.any(1), first_end + 1, completions.shape[1])
    return [ids[:length] for ids, length in zip(completions.tolist(), lengths.tolist())]


class _PointRolloutMixin(HubTrainerMixin):
    """Over a trainer of TRL that samples completions and scores them: brings image and point of each completion to
    every pass."""

    # TRL itself sees prompts of text alone, because it hands on no inputs of a model but those it knows. What its
    # methods cannot pass on waits in two attributes: `_rows`, the dataset's row of each completion, for the rewards,
    # and `_samples`, the `Sample` of each completion, for the model.
    _rows: list[Row]
    _samples: list[Sample]
    _buffered_inputs: Any  # TRL's: the micro-batches of the current completions
    config_class: type[Any]

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Reward | list[Reward],
        args: PointGRPOConfig | PointRLOOConfig | None,
        train_dataset: Rows | None,
        eval_dataset: Rows | dict[str, Rows] | None,
        processing_class: PointDescriptorProcessor | None,
        peft_config: PeftConfig | None,
        **kwargs: Any,
    ) -> None:
        if args is None:
            args = self.config_class()
        if not isinstance(args, self.config_class):
            raise TypeError(
                f"args must be a {self.config_class.__name__}, got {type(args).__name__}"
            )
        for name, dataset in named_datasets(train_dataset, eval_dataset):
            check_rows(dataset, name)
        if train_dataset is not None:
            points = args.generation_batch_size // args.num_generations
            check_count(train_dataset, points)
        args = copy_of(args)
        if isinstance(model, str) and self._is_adapter(model, args):
            adapter = model
            model = load_adapter(adapter, args, kwargs.pop("quantization_config"))
            if processing_class is None and has_file(adapter, PROCESSOR_NAME):
                processing_class = processor_of(adapter)
            args.model_init_kwargs = None  # the model is loaded
        if processing_class is None:
            processing_class = self._load_processor(model, args)
        has_adapter = peft_config is not None or isinstance(model, PeftModel)
        check_policy(self._load_config(model, args), args, has_adapter)
        self._rows = []
        self._samples = []
        super().__init__(
            model=model,
            reward_funcs=list(reward_funcs)
            if isinstance(reward_funcs, list)
            else reward_funcs,
            args=args,
            train_dataset=without_decoding(train_dataset),
            eval_dataset=without_decoding(eval_dataset),
            processing_class=processing_class,
            peft_config=copy.copy(peft_config),
            **kwargs,
        )
        self._check_sharing()
        self._choose_what_is_trained()
        self._suppress_placeholders()
        self._take_end_tokens()
        self._place_localizers()

    @staticmethod
    def _revision(args: PointGRPOConfig | PointRLOOConfig) -> str | None:
        return (args.model_init_kwargs or {}).get("revision")

    def _is_adapter(self, model: str, args: PointGRPOConfig | PointRLOOConfig) -> bool:
        file = find_adapter_config_file(model, revision=self._revision(args))
        return file is not None

    def _load_config(
        self, model: str | PreTrainedModel, args: PointGRPOConfig | PointRLOOConfig
    ) -> PreTrainedConfig:
        if not isinstance(model, str):
            return model.config
        return AutoConfig.from_pretrained(
            model,
            revision=self._revision(args),
            trust_remote_code=args.trust_remote_code,
        )

    def _load_processor(
        self, model: str | PreTrainedModel, args: PointGRPOConfig | PointRLOOConfig
    ) -> PointDescriptorProcessor:
        revision = self._revision(args) if isinstance(model, str) else None
        return processor_of(model, revision, args.trust_remote_code)

    def _check_sharing(self) -> None:
        shards_weights = self.is_fsdp_enabled or is_deepspeed_zero3_enabled()
        if self.args.share_encodings and shards_weights:
            raise ValueError(
                "share_encodings runs the vision side by itself, which FSDP and ZeRO-3 do not allow: "
                "set share_encodings=False"
            )

    def _choose_what_is_trained(self) -> None:
        if not self.args.train_vision:
            if not is_peft_model(self.model):
                self._descriptor.freeze_vision()
            check_only_language_model_is_trained(self._descriptor)
        self._descriptor.freeze_unreached()

    def _suppress_placeholders(self) -> None:
        """Placeholders of images and points are never generated."""
        config = self._descriptor.config
        suppressed = [config.image_token_id, config.region_token_id]
        given = self.generation_kwargs["suppress_tokens"] or []
        suppressed += [token for token in given if token not in suppressed]
        self.generation_config.suppress_tokens = suppressed
        self.generation_kwargs["suppress_tokens"] = suppressed

    def _take_end_tokens(self) -> None:
        """Completions end where generation ends them, also where `generation_kwargs` name other end tokens."""
        end = self.generation_kwargs["eos_token_id"]
        self.eos_token_ids = [end] if isinstance(end, int) else list(end or [])

    def _place_localizers(self) -> None:
        for reward in self.reward_funcs:
            if isinstance(reward, LocalizerReward):
                reward.to(self.accelerator.device)

    @property
    def _descriptor(self) -> PointDescriptorForConditionalGeneration:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if is_peft_model(model) else model

    def _generate_and_score_completions(self, inputs: list[Row]) -> Batch:
        self._rows = open_images(inputs)
        self._samples = self._make_samples(self._rows)
        prompt = [{"role": "user", "content": self.processing_class.request()}]
        output = super()._generate_and_score_completions(
            [{"prompt": prompt} for _ in inputs]
        )
        if self.log_completions and self.log_multimodal:
            # TRL logs images that it has seen; it sees none
            images = [[row["image"]] for row in self._rows]
            self._logs["images"].extend(gather_object(images))
        if self._is_picture_step():
            self._draw_first_point(self._rows, self._samples, output["completion_ids"])
        return {**output, "samples": self._samples}

    def _make_samples(self, rows: Sequence[Row]) -> list[Sample]:
        """The [`Sample`] of each row; rows of one image and point have the same one where encodings are shared."""
        share = self.args.share_encodings
        device = self.accelerator.device
        images, image_of_row = images_to_encode([row["image"] for row in rows], share)
        pixel_values = self.processing_class.pixel_values(images).to(device)
        made: dict[tuple[int, float, float], Sample] = {}
        made_of_image: list[list[Sample]] = [[] for _ in images]
        samples = []
        for row, image in zip(rows, image_of_row):
            points = self._points_on_canvas(row, images[image].size)  # (1, 2)
            x, y = points[0].tolist()
            if (image, x, y) not in made:
                sample = Sample(points.to(device), pixel_values[image])
                made[image, x, y] = sample
                made_of_image[image].append(sample)
            samples.append(made[image, x, y])
        if share and not self.args.train_vision:
            self._encode(made_of_image)
        return samples

    def _points_on_canvas(self, row: Row, size: tuple[int, int]) -> torch.Tensor:
        try:
            return self.processing_class.points_to_canvas([row["point"]], size)
        except ValueError as error:
            dataset = self.train_dataset if self.model.training else self.eval_dataset
            raise ValueError(f"{find_point(dataset, row['point'])}: {error}") from error

    @torch.no_grad()
    def _encode(self, samples_of_image: Sequence[Sequence[Sample]]) -> None:
        """Encodes the samples of each image, each image once."""
        batch_size = self.args.per_device_train_batch_size
        for start in range(0, len(samples_of_image), batch_size):
            chunk = samples_of_image[start : start + batch_size]
            # (images, 3, image_size, image_size)
            pixel_values = torch.stack([samples[0].pixel_values for samples in chunk])
            with self.accelerator.autocast():
                encoded = self._descriptor.get_image_features(
                    pixel_values, stacked_points(chunk)
                )
            points_per_image = [len(samples) for samples in chunk]
            embeds_of_image = torch.split(encoded.point_embeds, points_per_image)
            for samples, image_tokens, embeds in zip(
                chunk, encoded.pooler_output, embeds_of_image
            ):
                for sample, point_embeds in zip(samples, embeds.split(1)):
                    sample.store_encoding(image_tokens, point_embeds)

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict]:
        processor = self.processing_class
        text = processor.render(**self.chat_template_kwargs)
        input_ids = processor.tokenize([text])["input_ids"]  # (1, length)
        return [input_ids[0].tolist()] * len(prompts), None, {}

    def _generate_ids(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        """Token ids of a completion for each sample."""
        input_ids = torch.tensor(
            prompt_ids, device=self.accelerator.device
        )  # (rows, length)
        generation_model = unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        )
        with (
            profiling_context(self, "transformers.generate"),
            generation_model as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            generated = model.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                generation_config=self.generation_config,
                **image_inputs(self._samples, self.args.share_encodings),
            )
        completions = generated[:, input_ids.shape[1] :]
        return up_to_end(completions, self.eos_token_ids)

    def _calculate_rewards(
        self, inputs: list, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        return super()._calculate_rewards(self._rows, *args, **kwargs)

    def _is_picture_step(self) -> bool:
        steps = self.args.picture_steps
        is_due = bool(steps) and self.state.global_step % steps == 0
        return is_due and self.model.training and self.accelerator.is_main_process

    def _draw_first_point(
        self,
        rows: Sequence[Row],
        samples: Sequence[Sample],
        completion_ids: torch.Tensor,
    ) -> None:
        """Draws the completions of the batch's first point."""
        numbers = [
            number for number, sample in enumerate(samples) if sample is samples[0]
        ]
        texts = self.processing_class.batch_decode(
            completion_ids[numbers], skip_special_tokens=True
        )
        image = rows[0]["image"]
        found = self._found_by_first_localizer(image, texts)
        drawn = []
        for text, place in zip(texts, found):
            drawn.append(
                {"point": rows[0]["point"], "description": text, "found": place}
            )
        picture = draw_round_trip(image, drawn)
        save_picture(picture, self.args.output_dir, self.state.global_step)
        report_picture(picture, self.callback_handler.callbacks, self.state.global_step)

    def _found_by_first_localizer(
        self, image: Image.Image, texts: list[str]
    ) -> list[tuple[float, float] | None]:
        for reward in self.reward_funcs:
            if isinstance(reward, LocalizerReward):
                points, _ = reward.locate([image] * len(texts), texts)
                return [
                    None if math.isnan(x) else (x, y) for x, y in points[0].tolist()
                ]
        return [None] * len(texts)

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        buffered = self._buffered_inputs
        if buffered is None and self.model.training:
            # TRL counts from 0, also where a run is resumed
            self._step = self.state.global_step * self.args.gradient_accumulation_steps
        inputs = super()._prepare_inputs(generation_batch)
        is_same_batch = self._buffered_inputs is buffered
        if is_same_batch or not self.args.share_encodings:
            return inputs
        self._buffered_inputs = keep_groups_together(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model: Any, inputs: Batch) -> torch.Tensor:
        self._samples = inputs["samples"]
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, *args: Any, **kwargs: Any
    ) -> Any:
        share = self.args.share_encodings
        takes_all_labels = not share or has_virtual_tokens(self.model)
        remaining_samples = iter(self._samples)

        def run(input_ids: torch.Tensor, labels: torch.Tensor, **inputs: Any) -> Any:
            # called for one chunk of rows after another
            samples = list(islice(remaining_samples, len(input_ids)))
            scored = (
                {"labels": labels} if takes_all_labels else completions_only(labels)
            )
            return model(
                input_ids=input_ids, **scored, **inputs, **image_inputs(samples, share)
            )

        return super()._get_per_token_logps_and_entropies(run, *args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        """With `remove_unused_columns` those stay that the trainer itself or a reward names."""
        columns = list(COLUMNS)
        for reward in self.reward_funcs:
            columns += inspect.signature(reward).parameters
        self._signature_columns = columns

    def _get_dataloader(
        self, dataset: Any, description: str, *args: Any, **kwargs: Any
    ) -> DataLoader:
        if isinstance(dataset, Dataset):
            used = self._remove_unused_columns(dataset, description=description)
            dataset = RepeatedRows(without_decoding(used))
        return super()._get_dataloader(dataset, description, *args, **kwargs)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> EpochSampler:
        sampler = super()._get_train_sampler(dataset)
        return EpochSampler(
            sampler.data_source,
            sampler.mini_repeat_count,
            sampler.batch_size,
            sampler.repeat_count,
            sampler.shuffle,
            sampler.seed,
        )

    def _rollout_file(self, checkpoint: str | Path) -> Path:
        return Path(checkpoint) / f"rollouts_{self.accelerator.process_index}.pt"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.save_only_model:
            return
        steps_per_batch = self.args.steps_per_generation * self.num_iterations
        if self._step % steps_per_batch:  # completions that are still to be used
            checkpoint = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder = Path(self._get_output_dir(trial=trial)) / checkpoint
            rollouts = {"step": self._step, "batches": self._buffered_inputs}
            with whole_file(self._rollout_file(folder)) as file:
                torch.save(rollouts, file)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        rollouts = self._read_rollouts(checkpoint)
        # all processes go on with theirs, or none: they generate together
        if all(gather_object([rollouts is not None])) and rollouts is not None:
            self._step = rollouts["step"]
            self._buffered_inputs = rollouts["batches"]

    def _read_rollouts(self, checkpoint: str) -> dict[str, Any] | None:
        """What [`_save_checkpoint`] kept of this process; None where there is nothing, or where it is broken."""
        file = self._rollout_file(checkpoint)
        if not file.exists():
            return None
        try:
            with torch.serialization.safe_globals([Sample]):
                return torch.load(
                    file, map_location=self.accelerator.device, weights_only=True
                )
        except (EOFError, OSError, RuntimeError, UnpicklingError) as error:
            logger.warning(
                "%s is broken (%s): new completions are generated", file, error
            )
            return None


class PointGRPOTrainer(_PointRolloutMixin, GRPOTrainer):
    """TRL's `GRPOTrainer` for a Point Descriptor, on rows with the columns "image" and "point" ((x, y) in pixels of
    the displayed image); further columns are passed on to the rewards, which get the images in RGB as displayed.

    The prompt is the processor's. What precedes the language model is frozen unless `args.train_vision`. A model that
    is passed is trained itself, no copy of it; the localizers of a [`LocalizerReward`] are moved to the trainer's
    device.

    Args:
        model: [`PointDescriptorForConditionalGeneration`], a `PeftModel` of one, or path or Hub id of a model or of an
            adapter, which is trained on; the reference is then the adapter as it was.
        reward_funcs: [`LocalizerReward`], any reward function of TRL, or a list of them.
        args ([`PointGRPOConfig`], *optional*): stays as it is; the trainer's `args` are a copy.
        train_dataset, eval_dataset (`datasets.Dataset` or `datasets.IterableDataset`; for evaluation also a `dict` of
            them): such as `load_dataset` or [`load_points`] give them.
        processing_class ([`PointDescriptorProcessor`], *optional*): by default the one in the model's checkpoint.
        reward_processing_classes, callbacks, optimizers, quantization_config (*optional*): as in TRL.
        peft_config (*optional*): such as [`paper_lora_config`]; without it the language model is trained in full.
        tools, rollout_func, environment_factory: TRL's; refused, because neither image nor point would reach them.

    Raises ValueError for a model that is no Point Descriptor, a model without a checkpoint that tells the processor, a
    dataset without these columns or with fewer points than one update takes, a point outside its image, and an adapter
    on what precedes the language model.
    """

    config_class = PointGRPOConfig
    _tag_names = ["trl", "grpo", "talking-points"]

    # named here and not in the mixin, so that an error about the call names the class that was called
    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Reward | list[Reward],
        args: PointGRPOConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | dict[str, Rows] | None = None,
        processing_class: PointDescriptorProcessor | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
        tools: Any = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
    ) -> None:
        refuse_turns(tools, rollout_func, environment_factory)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> tuple[list[list[int]], None]:
        return self._generate_ids(prompt_ids), None


class PointRLOOTrainer(_PointRolloutMixin, RLOOTrainer):
    """TRL's `RLOOTrainer` for a Point Descriptor. Arguments as in [`PointGRPOTrainer`]; `args` is a
    [`PointRLOOConfig`]."""

    config_class = PointRLOOConfig
    _tag_names = ["trl", "rloo", "talking-points"]

    def __init__(
        self,
        model: str | PreTrainedModel,
        reward_funcs: Reward | list[Reward],
        args: PointRLOOConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | dict[str, Rows] | None = None,
        processing_class: PointDescriptorProcessor | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any
    ) -> list[list[int]]:
        return self._generate_ids(prompt_ids)
