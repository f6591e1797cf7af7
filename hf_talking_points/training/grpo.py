"""Reinforcement learning of descriptions where points are labelled but text is not (section 3.3 of the paper), on TRL's trainers."""

import io
import math
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from peft import LoraConfig
from PIL import Image
from transformers.integrations import (
    TensorBoardCallback,
    TrackioCallback,
    is_deepspeed_zero3_enabled,
    is_trackio_available,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.extras.profiling import profiling_context
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import RepeatSampler, split_tensor_dict

from ..hub import HubTrainerMixin
from ..models.coordinates import check_points
from ..models.modeling_point_descriptor import PointDescriptorImageOutput
from ..rewards import LocalizerReward, distinct_images
from ..visualization import draw_round_trip
from .arguments import LANGUAGE_MODEL_PROJECTIONS
from .fused_head import completions_only

if is_trackio_available():
    import trackio

COLUMNS = ("image", "point")
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def paper_lora_config(r=64, lora_alpha=128, **kwargs):
    """LoRA on the attention projections of the language model alone, for `peft_config`. Without dropout: it would make the log-probs of a
    completion differ from those it was sampled with."""
    return LoraConfig(
        **{
            "r": r,
            "lora_alpha": lora_alpha,
            "lora_dropout": 0.0,
            "target_modules": LANGUAGE_MODEL_PROJECTIONS,
            **kwargs,
        }
    )


@dataclass
class _PointConfig:
    num_generations: int = field(default=3, metadata={"help": "completions for each point"})
    beta: float = field(
        default=0.1, metadata={"help": "weight of the KL divergence from the reference model"}
    )
    learning_rate: float = field(default=5e-6, metadata={"help": "initial learning rate"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "passes over the dataset"})
    max_completion_length: int = field(default=128, metadata={"help": "tokens of a description"})
    per_device_train_batch_size: int = field(
        default=24, metadata={"help": "completions of one forward and backward pass"}
    )
    per_device_eval_batch_size: int = field(
        default=24, metadata={"help": "completions of one evaluation batch"}
    )
    train_vision: bool = field(
        default=False, metadata={"help": "also train what precedes the language model"}
    )
    share_encodings: bool = field(
        default=True, metadata={"help": "completions of one point share its encoding and prompt"}
    )
    picture_steps: int = field(
        default=0,
        metadata={"help": "draw the completions of one point every so many steps; 0: never"},
    )

    def __post_init__(self):
        if self.use_vllm:
            raise ValueError(
                "use_vllm=True cannot work: vLLM takes token ids and images only, so the point would not reach the policy"
            )
        if self.bf16 is None and not torch.accelerator.is_available():
            self.bf16 = False  # most CPUs are several times slower with it
        super().__post_init__()


@dataclass
class PointGRPOConfig(_PointConfig, GRPOConfig):
    """`GRPOConfig` with the paper's defaults: 3 completions a prompt, beta 0.1, learning rate 5e-6, 3 epochs, rewards normalised within
    their group; 8 prompts a step.

    Args:
        train_vision (`bool`): also trains what precedes the language model.
        share_encodings (`bool`): completions of one point share its encoding, the prefill of generation, and their prompt in the log-prob
            passes. False does everything once for each completion, as TRL does; the results are the same.
        picture_steps (`int`): every so many steps the completions of one point are drawn, with what the first [`LocalizerReward`] makes of
            them, as `_pictures/round_trip_*.png` in `output_dir`, and shown in TensorBoard and Trackio where they are reported to; 0
            draws none.
    """

    loss_type: str = field(default="grpo", metadata={"help": "TRL's loss_type"})
    use_bias_correction_kl: bool = field(
        default=False, metadata={"help": "importance weights on the KL divergence"}
    )


@dataclass
class PointRLOOConfig(_PointConfig, RLOOConfig):
    """`RLOOConfig` with the fields and batch of [`PointGRPOConfig`]."""


@dataclass(eq=False)
class Sample:
    """An image and a point of it, shared by the completions that describe it.

    Args:
        input_points (`torch.Tensor` of shape `(1, 2)`): (x, y) on the canvas.
        pixel_values (`torch.Tensor` of shape `(3, image_size, image_size)`, *optional*): None once encoded.
        image_tokens (`torch.Tensor` of shape `(image_seq_length, hidden)`, *optional*): encoded by a frozen vision side.
        point_embeds (`torch.Tensor` of shape `(1, hidden)`, *optional*)
    """

    input_points: torch.Tensor
    pixel_values: torch.Tensor | None = None
    image_tokens: torch.Tensor | None = None
    point_embeds: torch.Tensor | None = None


def check_rows(dataset, name):
    """Raises ValueError naming column or row where a dataset lacks a column or a point does not lie on its image.

    Points are checked here where the images are files or encoded bytes, whose size can be read without decoding them, else when they are
    used."""
    missing = [column for column in COLUMNS if column not in (dataset.column_names or COLUMNS)]
    if missing:
        raise ValueError(
            f"{name} has the columns {dataset.column_names} but needs {list(COLUMNS)}: {missing[0]!r} is missing"
        )
    if (
        not isinstance(dataset, Dataset)
        or not isinstance(dataset.features["image"], datasets.Image)
        or dataset.format["type"] == "custom"
    ):
        return
    for row, record in enumerate(
        dataset.select_columns(list(COLUMNS)).cast_column("image", datasets.Image(decode=False))
    ):
        try:
            stored = record["image"]
            if stored is None:
                raise ValueError("has no image")
            with Image.open(
                stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])
            ) as image:
                rotated = image.getexif().get(0x0112) in ROTATED
                check_points([record["point"]], *(image.size[::-1] if rotated else image.size))
        except (OSError, ValueError) as error:
            raise ValueError(f"row {row} of {name}: {error}") from error


class EpochSampler(RepeatSampler):
    """TRL's sampler with an order that follows from seed and epoch alone: a resumed run would go through the first epoch's again."""

    def set_epoch(self, epoch):
        if self.shuffle:
            self.generator.manual_seed(self.seed + epoch)


def keep_groups_together(batches):
    """Micro-batches of shuffled rows, filled anew so that the rows of one [`Sample`] follow each other; the samples keep their shuffled
    order."""
    ranks, order = {}, []
    for batch in batches:
        order += [ranks.setdefault(id(sample), len(ranks)) for sample in batch["samples"]]
    order = sorted(range(len(order)), key=order.__getitem__)

    def reorder(values):
        if isinstance(values[0], list):
            rows = [row for value in values for row in value]
            return [rows[i] for i in order]
        return values[0] if values[0] is None or values[0].ndim == 0 else torch.cat(values)[order]

    return split_tensor_dict(
        {name: reorder([batch[name] for batch in batches]) for name in batches[0]}, len(batches)
    )


class _PointRolloutMixin(HubTrainerMixin):
    """Over a trainer of TRL that samples completions and scores them: brings image and point of each completion to every pass.

    TRL itself sees prompts of text alone, because it hands on no inputs of a model but those it knows."""

    def __init__(
        self,
        model,
        reward_funcs,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        processing_class=None,
        callbacks=None,
        optimizers=(None, None),
        peft_config=None,
    ):
        args = self.config_class() if args is None else args
        if not isinstance(args, self.config_class):
            raise TypeError(
                f"args must be a {self.config_class.__name__}, got {type(args).__name__}"
            )
        for name, dataset in [
            ("train_dataset", train_dataset),
            *_named_eval_datasets(eval_dataset),
        ]:
            if dataset is not None:
                check_rows(dataset, name)
        if not isinstance(model, str):
            if model.config.model_type != "point_descriptor":
                raise ValueError(
                    f"model must be a Point Descriptor, got a {model.config.model_type}"
                )
            if (
                args.beta
                and peft_config is None
                and not is_peft_model(model)
                and not model.config._name_or_path
            ):
                raise ValueError(
                    "beta > 0 loads the reference model from where the model came from: save the model, and load or pass its path"
                )
        self._rows, self._samples = [], []
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            peft_config=peft_config,
        )
        if args.share_encodings and (self.is_fsdp_enabled or is_deepspeed_zero3_enabled()):
            raise ValueError(
                "share_encodings runs the vision side by itself, which FSDP and ZeRO-3 do not allow: set share_encodings=False"
            )
        descriptor = self._descriptor
        if not args.train_vision:
            if not is_peft_model(self.model):
                descriptor.freeze_vision()
            for name, parameter in descriptor.base_model.named_parameters():
                if parameter.requires_grad and not name.startswith("language_model."):
                    raise ValueError(
                        f"{name} precedes the language model but would be trained: adapt the language model alone, as "
                        "paper_lora_config() does, or set train_vision=True"
                    )
        descriptor.freeze_unreached()
        self.generation_config.suppress_tokens = [
            descriptor.config.image_token_id,
            descriptor.config.region_token_id,
        ]
        self.generation_kwargs["suppress_tokens"] = self.generation_config.suppress_tokens
        for reward in self.reward_funcs:
            if isinstance(reward, LocalizerReward):
                reward.to(self.accelerator.device)
                reward.share_encodings = args.share_encodings

    @property
    def _descriptor(self):
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if is_peft_model(model) else model

    def _make_samples(self, rows):
        """One [`Sample`] for each row; rows of one image and point have the same one where encodings are shared."""
        processor, share = self.processing_class, self.args.share_encodings
        images, index = distinct_images(row["image"] for row in rows) if share else ([], [])
        if not share:
            images, index = (
                [distinct_images([row["image"]])[0][0] for row in rows],
                range(len(rows)),
            )
        pixel_values = processor.pixel_values(images).to(self.accelerator.device)
        made, samples = {}, []
        for row, image in zip(rows, index):
            try:
                points = processor.points_to_canvas([row["point"]], images[image].size)
            except ValueError as error:
                raise ValueError(f"row {self._find_row(row)} of the dataset: {error}") from error
            key = (image, *points[0].tolist()) if share else len(made)
            if key not in made:
                made[key] = Sample(points.to(self.accelerator.device), pixel_values[image])
            samples.append(made[key])
        if share and not self.args.train_vision:
            self._encode([(key[0], sample) for key, sample in made.items()])
        return samples

    def _find_row(self, row):
        """Index of the dataset's first row with the point of `row`, for messages."""
        dataset = self.train_dataset if self.model.training else self.eval_dataset
        if isinstance(dataset, Dataset):
            for index, other in enumerate(dataset.select_columns(["point"])):
                if repr(other["point"]) == repr(row["point"]):
                    return index
        return f"with point {row['point']}"

    @torch.no_grad()
    def _encode(self, samples):
        """Encodes samples, given with the number of their image, each image once."""
        by_image = [
            [sample for _, sample in group]
            for _, group in groupby(sorted(samples, key=lambda s: s[0]), key=lambda s: s[0])
        ]
        for start in range(0, len(by_image), self.args.per_device_train_batch_size):
            chunk = by_image[start : start + self.args.per_device_train_batch_size]
            points = [torch.cat([sample.input_points for sample in own]) for own in chunk]
            points = torch.nn.utils.rnn.pad_sequence(
                points, batch_first=True, padding_value=float("nan")
            )
            with self.accelerator.autocast():
                image = self._descriptor.get_image_features(
                    torch.stack([own[0].pixel_values for own in chunk]), points
                )
            for own, tokens, embeds in zip(
                chunk, image.pooler_output, image.point_embeds.split(image.point_counts)
            ):
                for sample, embed in zip(own, embeds):
                    sample.image_tokens, sample.point_embeds, sample.pixel_values = (
                        tokens,
                        embed[None],
                        None,
                    )

    def _image_inputs(self, samples):
        """What the model takes beside the text of rows with these samples: consecutive rows of one sample share its encoding."""
        group = (
            math.gcd(*(len(list(run)) for _, run in groupby(samples, key=id)))
            if self.args.share_encodings
            else 1
        )
        first = samples[::group]
        if first[0].image_tokens is not None:
            tokens, embeds = (
                [s.image_tokens for s in first],
                torch.cat([s.point_embeds for s in samples]),
            )
            return {
                "mm_encoder_outputs": {
                    "image": PointDescriptorImageOutput(pooler_output=tokens, point_embeds=embeds)
                }
            }
        points = torch.stack([sample.input_points.expand(group, 2) for sample in first])
        return {
            "pixel_values": torch.stack([sample.pixel_values for sample in first]),
            "input_points": points,
        }

    def _generate_and_score_completions(self, inputs):
        self._rows, self._samples = inputs, self._make_samples(inputs)
        prompt = [{"role": "user", "content": self.processing_class.prompt}]
        output = super()._generate_and_score_completions([{"prompt": prompt} for _ in inputs])
        steps = self.args.picture_steps
        if (
            steps
            and self.model.training
            and self.state.global_step % steps == 0
            and self.accelerator.is_main_process
        ):
            self._draw(output)
        return {**output, "samples": self._samples}

    def _tokenize_prompts(self, prompts):
        ids = self.processing_class.tokenize([self.processing_class.render()])["input_ids"][
            0
        ].tolist()
        return [ids] * len(prompts), None, {}

    def _generate_ids(self, prompt_ids):
        prompt_ids = torch.tensor(prompt_ids, device=self.accelerator.device)
        unwrapped = unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        )
        with (
            profiling_context(self, "transformers.generate"),
            unwrapped as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            ids = model.generate(
                input_ids=prompt_ids,
                attention_mask=torch.ones_like(prompt_ids),
                generation_config=self.generation_config,
                **self._image_inputs(self._samples),
            )
        completions = ids[:, prompt_ids.shape[1] :]
        ends = torch.isin(completions, torch.tensor(self.eos_token_ids, device=ids.device))
        lengths = torch.where(ends.any(1), ends.int().argmax(1) + 1, completions.shape[1])
        return [row[:length] for row, length in zip(completions.tolist(), lengths.tolist())]

    def _calculate_rewards(self, inputs, *args, **kwargs):
        return super()._calculate_rewards(self._rows, *args, **kwargs)

    def _draw(self, output):
        """Draws the completions of the batch's first point."""
        rewards = [reward for reward in self.reward_funcs if isinstance(reward, LocalizerReward)]
        own = [row for row, sample in enumerate(self._samples) if sample is self._samples[0]]
        texts = self.processing_class.batch_decode(
            output["completion_ids"][own], skip_special_tokens=True
        )
        image, point = distinct_images([self._rows[0]["image"]])[0][0], self._rows[0]["point"]
        found = (
            rewards[0].locate([image] * len(texts), texts)[0][0] if rewards else [None] * len(texts)
        )
        rows = [
            {"point": point, "description": text, "found": place}
            for text, place in zip(texts, found)
        ]
        folder = (
            Path(self.args.output_dir) / "_pictures"
        )  # what begins with _ is not pushed: the photos may not be ours to publish
        folder.mkdir(parents=True, exist_ok=True)
        picture = draw_round_trip(image, rows)
        picture.save(folder / f"round_trip_{self.state.global_step:05d}.png")
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback):
                callback.tb_writer.add_image(
                    "round_trip", np.asarray(picture), self.state.global_step, dataformats="HWC"
                )
            elif isinstance(callback, TrackioCallback):
                trackio.log({"round_trip": trackio.Image(picture)})

    def _prepare_inputs(self, generation_batch):
        before = self._buffered_inputs
        if before is None and self.model.training:
            self._step = (
                self.state.global_step * self.args.gradient_accumulation_steps
            )  # not 0 after resuming
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is before or not self.args.share_encodings:
            return inputs
        self._buffered_inputs = keep_groups_together(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model, inputs):
        self._samples = inputs["samples"]
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        start = 0

        def run(input_ids, labels, **inputs):  # called for one chunk of rows after another
            nonlocal start
            samples = self._samples[start : start + len(input_ids)]
            start += len(input_ids)
            scored = completions_only(labels) if self.args.share_encodings else {"labels": labels}
            return model(input_ids=input_ids, **scored, **inputs, **self._image_inputs(samples))

        return super()._get_per_token_logps_and_entropies(run, *args, **kwargs)

    def _get_train_sampler(self, dataset=None):
        s = super()._get_train_sampler(dataset)
        return EpochSampler(
            s.data_source, s.mini_repeat_count, s.batch_size, s.repeat_count, s.shuffle, s.seed
        )

    def _rollout_file(self, folder):
        return Path(folder) / f"rollouts_{self.accelerator.process_index}.pt"

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        if self._step % (
            self.args.steps_per_generation * self.num_iterations
        ):  # completions that are still to be used
            folder = (
                Path(self._get_output_dir(trial=trial))
                / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            )
            torch.save(
                {"step": self._step, "batches": self._buffered_inputs}, self._rollout_file(folder)
            )

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self._rollout_file(checkpoint).exists():
            with torch.serialization.safe_globals([Sample]):
                saved = torch.load(
                    self._rollout_file(checkpoint),
                    map_location=self.accelerator.device,
                    weights_only=True,
                )
            self._step, self._buffered_inputs = saved["step"], saved["batches"]


def _named_eval_datasets(dataset):
    if isinstance(dataset, dict):
        return [(f"eval_dataset[{name!r}]", part) for name, part in dataset.items()]
    return [("eval_dataset", dataset)]


class PointGRPOTrainer(_PointRolloutMixin, GRPOTrainer):
    """TRL's `GRPOTrainer` for a Point Descriptor, on a dataset with the columns "image" and "point" ((x, y) in pixels of the displayed
    image); others are passed on to the rewards.

    The prompt is the processor's. What precedes the language model is frozen unless `args.train_vision`.

    Args:
        model: [`PointDescriptorForConditionalGeneration`], or path or Hub id of one.
        reward_funcs: [`LocalizerReward`], any reward function of TRL, or a list of them.
        args ([`PointGRPOConfig`], *optional*)
        train_dataset, eval_dataset (`datasets.Dataset`; a `dict` of them for evaluation)
        processing_class ([`PointDescriptorProcessor`])
        peft_config (*optional*): such as [`paper_lora_config`]; without it the language model is trained in full.

    Raises ValueError for a model that is no Point Descriptor, a dataset without these columns, a point outside its image, and an adapter on
    what precedes the language model.
    """

    config_class = PointGRPOConfig
    _tag_names = ["trl", "grpo", "talking-points"]

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        return self._generate_ids(prompt_ids), None


class PointRLOOTrainer(_PointRolloutMixin, RLOOTrainer):
    """TRL's `RLOOTrainer` for a Point Descriptor. Arguments as in [`PointGRPOTrainer`], `args` is a [`PointRLOOConfig`]."""

    config_class = PointRLOOConfig
    _tag_names = ["trl", "rloo", "talking-points"]

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        return self._generate_ids(prompt_ids)
