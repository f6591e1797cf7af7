"""Rows of text that share a prefix: as one packed sequence for each image, in which the prefix stands once."""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel


class PackedRows(NamedTuple):
    """Rows of text as one sequence for each run of them, in which what a row shares with the first stands once.

    Args:
        source (`torch.LongTensor` of shape `(runs, packed_length)`): position in the flattened rows; 0 after the last.
        valid (bool `torch.Tensor` of shape `(runs, packed_length)`): False = padding, of a row or of the sequence.
        place (`torch.LongTensor` of shape `(rows, length)`): of each position in the flattened sequences. Padding at a
            row's end has that of its last word.
        prefix (`torch.LongTensor` of shape `(rows,)`): number of leading positions that a row shares with the first.
    """

    source: torch.Tensor
    valid: torch.Tensor
    place: torch.Tensor
    prefix: torch.Tensor

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """rows (`torch.Tensor` of shape `(rows, length, ...)`) -> `(runs, packed_length, ...)`."""
        return rows.flatten(0, 1)[self.source]

    def unpack(self, packed: torch.Tensor) -> torch.Tensor:
        """packed (`torch.Tensor` of shape `(runs, packed_length, ...)`) -> `(rows, length, ...)`."""
        return packed.flatten(0, 1)[self.place]

    def unpack_cache(self, cache: DynamicCache) -> None:
        """Gives a cache of the sequences the keys and values of the rows."""
        for layer in cache.layers:
            for name in ("keys", "values"):
                states = getattr(layer, name).transpose(
                    1, 2
                )  # (runs, packed_length, heads, head_dim)
                setattr(layer, name, self.unpack(states).transpose(1, 2))

    def connected(self) -> Callable:
        """Mask function, as in transformers: a position belongs to those of its row and those it shares with the
        first."""
        length = self.place.shape[1]
        row = self.source // length  # (runs, packed_length)
        position = self.source % length
        prefix = self.prefix[row]
        # in a run only its first row shares nothing with itself
        is_first = row == row[:, :1]
        position = position.masked_fill(~is_first, length)

        def mask_function(
            batch: torch.Tensor,
            head: torch.Tensor,
            query: torch.Tensor,
            key: torch.Tensor,
        ) -> torch.Tensor:
            same_row = row[batch, query] == row[batch, key]
            return same_row | (position[batch, key] < prefix[batch, query])

        return mask_function


def shared_prefixes(first_row: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
    """Number of leading positions in which each row equals another one.

    Args:
        first_row (`torch.LongTensor` of shape `(rows,)`): the row that each is compared with; itself gives 0.
        values (`torch.Tensor` of shape `(rows, length, ...)`): what must be equal.
    Returns:
        `torch.LongTensor` of shape `(rows,)`.
    """
    rows, length = values[0].shape[:2]
    equal = torch.ones(rows, length, dtype=torch.bool, device=first_row.device)
    for value in values:
        equal &= (value == value[first_row]).view(rows, length, -1).all(-1)
    prefix = equal.long().cumprod(1).sum(1)
    is_first = first_row == torch.arange(rows, device=first_row.device)
    return prefix.masked_fill(is_first, 0)


def packed_rows(
    image_of_row: torch.Tensor,
    attention_mask: torch.Tensor,
    *values: torch.Tensor,
) -> PackedRows:
    """Packs each run of consecutive rows of one image into one sequence.

    Args:
        image_of_row (`torch.LongTensor` of shape `(rows,)`)
        attention_mask (`torch.LongTensor` of shape `(rows, length)`): 0 = padding.
        values (`torch.Tensor` of shape `(rows, length, ...)`): a row shares the leading positions in which these and
            the mask are equal to those of the run's first row.
    """
    rows, length = attention_mask.shape
    device = attention_mask.device
    starts_run = image_of_row.diff(prepend=image_of_row[:1] - 1) != 0
    run_of_row = starts_run.cumsum(0) - 1
    first_row = starts_run.nonzero().flatten()[run_of_row]
    prefix = shared_prefixes(first_row, attention_mask, *values)
    position = torch.arange(length, device=device).expand(rows, length)
    # what follows a row's last word has no place of its own
    end = ((position + 1) * attention_mask.bool()).amax(1).clamp(min=1)
    own_length = (end - prefix).clamp(min=0)
    start = own_length.cumsum(0) - own_length
    start = start - start[first_row]  # of a row's own positions in its sequence
    is_own = (position >= prefix[:, None]) & (position < end[:, None])
    position = position.minimum(end[:, None] - 1)
    shift = (start - prefix)[:, None]
    place = torch.where(position >= prefix[:, None], position + shift, position)
    runs, packed_length = int(run_of_row[-1]) + 1, int(place.max()) + 1
    place = place + packed_length * run_of_row[:, None]
    source = torch.zeros(runs, packed_length, dtype=torch.long, device=device)
    valid = torch.zeros_like(source, dtype=torch.bool)
    own_places = place[is_own]
    source.view(-1)[own_places] = is_own.flatten().nonzero().flatten()
    valid.view(-1)[own_places] = attention_mask.bool()[is_own]
    return PackedRows(source, valid, place, prefix)


def rows_alike(*values: torch.Tensor | None) -> int:
    """Largest n for which every n consecutive rows are equal.

    Args:
        values (`torch.Tensor` of shape `(rows, ...)`, *optional*): what must be equal.
    """
    given = [value.flatten(1) for value in values if value is not None]
    as_before = torch.stack([(rows[1:] == rows[:-1]).all(1) for rows in given]).all(0)
    changes = (
        ~as_before
    ).nonzero().flatten() + 1  # rows that differ from the row before
    return math.gcd(len(given[0]), *changes.tolist())


def layers_know_rows(language_model: PreTrainedModel) -> bool:
    """Whether layers are told something about each row: PEFT hands them adapters, tasks, offsets and scalings of the
    rows by hooks."""
    for module in language_model.modules():
        if module._forward_pre_hooks and type(module).__module__.startswith("peft."):
            return True
    return False


def reason_for_whole_rows(language_model: PreTrainedModel, length: int) -> str | None:
    """Why rows of `length` positions cannot share a prefix in a packed sequence, or None.

    There a row's positions do not stand side by side, and the mask alone tells which of them it sees.
    """
    config = language_model.config
    directions = [getattr(config, "is_causal", True)]
    directions += [
        getattr(module, "is_causal", True) for module in language_model.modules()
    ]
    if not all(directions):
        return "attention in both directions"
    if language_model._is_stateful:
        return "layers with a recurrent state"
    if "position_ids" not in inspect.signature(language_model.forward).parameters:
        return "a forward without position_ids"
    windows = {
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    layer_types = getattr(config, "layer_types", None) or windows
    for layer_type in layer_types:
        if layer_type not in ("full_attention", *windows):
            return f"layers of type {layer_type}"
        window = windows.get(layer_type)
        if window is not None and window < length:
            return (
                f"layers of type {layer_type} that see {window} of {length} positions"
            )
    return None
