"""Teachers: what turns the facts of a point, and where a model is asked also its photo, into a description.

A teacher has
    `columns` (`tuple[str]`): keys of every answer, always the same, "description" among them; every value is a string.
    `styles` (`tuple[str]`): what a [`PointQuery`] may ask of it.
    `info` (`dict`): what made the texts (models, hash of the prompts), for the dataset card; JSON can hold it.
    `__call__(queries, vocabulary)`: one dict with the keys `columns` for each [`PointQuery`]; `vocabulary` holds the
        names of all objects and parts of the sources, of which any but the point's own counts as invented. Equal
        queries get equal answers where the model's arithmetic allows it; sampling draws from the query's own seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, LogitsProcessor, Pipeline, pipeline

from ..prompts import Message
from ..words.writer import STYLES, write
from .checks import check
from .endpoint import EndpointError, EndpointTeacher
from .fusing import FusingTeacher, PointQuery, check_styles

__all__ = [
    "EndpointError",
    "EndpointTeacher",
    "ModelTeacher",
    "PointQuery",
    "RuleTeacher",
    "SeededSampling",
    "check",
]


class RuleTeacher:
    """The sentences of [`write`], no model."""

    columns = ("description",)
    styles = STYLES
    info = {"teacher": "rule"}

    def __call__(
        self, queries: Sequence[PointQuery], vocabulary: Iterable[str] = ()
    ) -> list[dict[str, str]]:
        check_styles(queries, self.styles)
        answers = []
        for query in queries:
            rng = np.random.default_rng(query.seed)
            answers.append({"description": write(query.facts, query.style, rng)})
        return answers


class SeededSampling(LogitsProcessor):
    """Makes the arg max of the scores a sample of softmax(scores / temperature).

    By Gumbel noise that each row draws from a seed of its own, so that an answer does not depend on its batch.
    """

    def __init__(self, seeds: Iterable[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor
    ) -> torch.FloatTensor:
        vocabulary_size = scores.shape[-1]
        rows = []
        for generator in self.generators:
            rows.append(torch.empty(vocabulary_size).exponential_(generator=generator))
        noise = torch.stack(rows)  # (batch, vocabulary)
        return scores / self.temperature - noise.log().to(scores.device)


class ModelTeacher(FusingTeacher):
    """Models of the Hub or of local folders, through transformers pipelines. They are loaded when first asked.

    Args:
        text (`str`): chat model ("text-generation"); Hub id or folder.
        vision (`str`, *optional*): "image-text-to-text" model. Without it the text model rewords the facts alone.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        temperature (`float`): 0 takes the likeliest token, anything above samples.
        max_new_tokens (`int`)
    """

    def __init__(
        self,
        text: str,
        vision: str | None = None,
        *,
        batch_size: int = 8,
        dtype: str | torch.dtype = "auto",
        device_map: Any = None,
        temperature: float = 0.0,
        max_new_tokens: int = 120,
    ) -> None:
        super().__init__(vision, text, queries_at_once=batch_size)
        self.batch_size = batch_size
        self.dtype = dtype
        self.device_map = device_map
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        commits = {}
        for model in (vision, text):
            if model:
                config = AutoConfig.from_pretrained(model)
                commits[model] = getattr(config, "_commit_hash", None)
        self.info = {
            "teacher": "model",
            **self.info,
            "commits": commits,
            "dtype": str(dtype),
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
        }

    def __getstate__(self) -> dict[str, Any]:
        # another process loads the models for itself
        state = self.__dict__.copy()
        state.pop("text_pipeline", None)
        state.pop("vision_pipeline", None)
        return state

    @cached_property
    def text_pipeline(self) -> Pipeline:
        return self.load("text-generation", self.text)

    @cached_property
    def vision_pipeline(self) -> Pipeline:
        if self.vision is None:
            raise ValueError("this teacher was made without a vision model")
        return self.load("image-text-to-text", self.vision)

    def load(self, task: str, model: str) -> Pipeline:
        """A pipeline that answers chats of different lengths in one batch."""
        pipe = pipeline(task, model, dtype=self.dtype, device_map=self.device_map)
        pipe.tokenizer.padding_side = (
            "left"  # answers start where the longest question ends
        )
        pipe.tokenizer.pad_token = pipe.tokenizer.pad_token or pipe.tokenizer.eos_token
        return pipe

    def answer(
        self, model: str, chats: list[list[Message]], seeds: list[int]
    ) -> list[str]:
        return (
            self.answer_seen(chats, seeds)
            if model == "vision"
            else self.answer_text(chats, seeds)
        )

    def answer_seen(self, chats: list[list[Message]], seeds: list[int]) -> list[str]:
        """The vision model's answers to chats of one batch."""
        # this pipeline takes all other arguments for its processor's
        answers = self.vision_pipeline(
            chats,
            batch_size=len(chats),
            return_full_text=False,
            generate_kwargs=self.generation_options(seeds),
        )
        return [answer[0]["generated_text"] for answer in answers]

    def answer_text(self, chats: list[list[Message]], seeds: list[int]) -> list[str]:
        """The text model's answers, in batches of chats with the same worked examples."""

        def examples(index: int) -> str:
            return str(chats[index][:-1])

        answers = [""] * len(chats)
        order = sorted(range(len(chats)), key=examples)
        for _, group in groupby(order, key=examples):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                batch = alike[start : start + self.batch_size]
                batch_chats = [chats[index] for index in batch]
                batch_seeds = [seeds[index] for index in batch]
                texts = self.continue_chats(batch_chats, batch_seeds)
                for index, text in zip(batch, texts):
                    answers[index] = text
        return answers

    def generation_options(self, seeds: list[int]) -> dict[str, Any]:
        """Arguments of `generate` for one batch."""
        sampling = [SeededSampling(seeds, self.temperature)] if self.temperature else []
        return {
            "do_sample": False,
            "logits_processor": sampling,
            "max_new_tokens": self.max_new_tokens,
        }

    @torch.no_grad()
    def continue_chats(self, chats: list[list[Message]], seeds: list[int]) -> list[str]:
        """The text model's answers to chats of one batch.

        The tokens that all chats begin with run through the model once.
        """
        model = self.text_pipeline.model
        tokenizer = self.text_pipeline.tokenizer
        token_rows = []
        for chat in chats:
            text = tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
            token_rows.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        shortest = min(len(tokens) for tokens in token_rows)
        common_length = len(os.path.commonprefix(token_rows))
        shared = min(
            common_length, shortest - 1
        )  # a token at least must be left to go on from
        input_ids, attention_mask = pad_between(
            token_rows, shared, tokenizer.pad_token_id
        )
        input_ids = input_ids.to(model.device)  # (batch, tokens)
        attention_mask = attention_mask.to(model.device)
        cache = None
        if shared:
            prefix = input_ids[:1, :shared]
            cache = model(
                input_ids=prefix, use_cache=True, logits_to_keep=1
            ).past_key_values
            cache.batch_repeat_interleave(len(chats))
        generated = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            pad_token_id=tokenizer.pad_token_id,
            **self.generation_options(seeds),
        )
        answers = generated[:, input_ids.shape[1] :]
        return tokenizer.batch_decode(answers, skip_special_tokens=True)


def pad_between(
    token_rows: list[list[int]], shared: int, pad_token_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of tokens as one batch, padded behind the first `shared` tokens, which are the same in all rows.

    Returns:
        input ids and attention mask, long tensors of shape `(len(token_rows), tokens of the longest row)`.
    """
    longest = max(len(tokens) for tokens in token_rows)
    padded_rows = []
    mask_rows = []
    for tokens in token_rows:
        missing = longest - len(tokens)
        padded_rows.append(tokens[:shared] + [pad_token_id] * missing + tokens[shared:])
        mask_rows.append([1] * shared + [0] * missing + [1] * (len(tokens) - shared))
    return torch.tensor(padded_rows), torch.tensor(mask_rows)
