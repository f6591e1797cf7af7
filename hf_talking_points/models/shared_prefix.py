"""Rows of text that share a prefix: as one packed sequence for each image, in which the prefix stands once."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, PreTrainedModel


class PackedRows(NamedTuple):
    """Rows of text as one sequence for each run of them, in which what a row shares with the first stands once.

    Args:
        source (`torch.LongTensor` of shape `(runs, packed_length)`): position in the flattened rows; 0 after the last.
        valid (bool `torch.Tensor` of shape `(runs, packed_length)`): False = padding, of a row or of the sequence.
        place (`torch.LongTensor` of shape `(rows, length)`): of each position in the flattened sequences. Padding at a
            row's end has that of its last word.
        prefix (`torch.LongTensor` of shape `(rows,)`): number of leading positions that a row shares with the first.
        first_row (`torch.LongTensor` of shape `(rows,)`): the first row of a row's run.
        is_word (bool `torch.Tensor` of shape `(rows, length)`): False = padding.
    """

    source: torch.Tensor
    valid: torch.Tensor
    place: torch.Tensor
    prefix: torch.Tensor
    first_row: torch.Tensor
    is_word: torch.Tensor

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

    def row_attention(self) -> "RowAttention":
        """What attends as the mask of [`connected`] says, without comparing the rows with each other."""
        rows, length = self.place.shape
        number = torch.arange(rows, device=self.place.device)
        is_first = self.first_row == number
        # what all rows share with the first of their run
        shared = int(self.prefix.masked_fill(is_first, length).amin())
        sees = torch.ones(length, length, dtype=torch.bool, device=self.place.device)
        sees = sees.tril() & self.is_word[:, None]
        # padding sees itself: a softmax over nothing is NaN, and so would be its gradient
        sees |= torch.eye(length, dtype=torch.bool, device=self.place.device)
        row, position = self.source // length, self.source % length
        run_of_row = is_first.cumsum(0) - 1
        source = torch.where(
            position < shared,
            run_of_row[row] * shared + position,
            int(is_first.sum()) * shared + row * (length - shared) + position - shared,
        )
        return RowAttention(
            prefix_place=self.place[is_first, :shared],
            prefix_mask=sees[is_first, None, :shared, :shared],
            row_place=self.place,
            row_mask=sees[:, None, shared:],
            source=source,
        )


def by_position(states: torch.Tensor) -> torch.Tensor:
    """states `(batch, heads, length, head_dim)` -> `(batch * length, heads, head_dim)`."""
    return states.transpose(1, 2).flatten(0, 1)


def taken(states: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """states `(positions, heads, head_dim)`, place `(batch, length)` -> `(batch, heads, length, head_dim)`."""
    # the gradient of an index is several times slower on a CPU
    return (
        states.index_select(0, place.flatten())
        .unflatten(0, place.shape)
        .transpose(1, 2)
    )


class RowAttention(NamedTuple):
    """Attention of packed rows, in which each row is compared with itself and not with all of its sequence.

    Args:
        prefix_place (`torch.LongTensor` of shape `(runs, shared)`): of what all rows of a run share, in the flattened
            sequences.
        prefix_mask (bool `torch.Tensor` of shape `(runs, 1, shared, shared)`): True = is seen.
        row_place (`torch.LongTensor` of shape `(rows, length)`): of the rows' positions in the flattened sequences.
        row_mask (bool `torch.Tensor` of shape `(rows, 1, length - shared, length)`): True = is seen.
        source (`torch.LongTensor` of shape `(runs, packed_length)`): where the answer of each position stands behind
            one another in those of the prefixes and of the rows.
    """

    prefix_place: torch.Tensor
    prefix_mask: torch.Tensor
    row_place: torch.Tensor
    row_mask: torch.Tensor
    source: torch.Tensor

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        **options: Any,
    ) -> torch.Tensor:
        """As of `scaled_dot_product_attention`, of states of shape `(runs, heads, packed_length, head_dim)`."""
        query, key, value = by_position(query), by_position(key), by_position(value)
        prefix = scaled_dot_product_attention(
            *(taken(states, self.prefix_place) for states in (query, key, value)),
            attn_mask=self.prefix_mask,
            **options,
        )
        shared = self.prefix_place.shape[1]
        rows = scaled_dot_product_attention(
            taken(query, self.row_place[:, shared:]),
            taken(key, self.row_place),
            taken(value, self.row_place),
            attn_mask=self.row_mask,
            **options,
        )
        answers = torch.cat([by_position(prefix), by_position(rows)])
        return taken(answers, self.source)


class RowsMask(torch.Tensor):
    """The mask of packed rows for every pair of positions. `scaled_dot_product_attention` with it is [`RowAttention`],
    as with the biases of `torch.nn.attention.bias`; what is made of it is a plain mask."""

    row_attention: RowAttention

    @classmethod
    def of(cls, mask: torch.Tensor, packed: PackedRows) -> "RowsMask":
        """
        Args:
            mask (bool `torch.Tensor` of shape `(runs, 1, packed_length, packed_length)`): True = is seen.
            packed ([`PackedRows`])
        """
        mask = mask.as_subclass(cls)
        mask.row_attention = packed.row_attention()
        return mask

    @classmethod
    def __torch_function__(
        cls,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            return attention_of_rows(*args, **kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)


def attention_of_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: RowsMask,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    """`scaled_dot_product_attention` with a mask of rows."""
    return attn_mask.row_attention(query, key, value, dropout_p=dropout_p, **options)


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
    is_word = attention_mask.bool()
    end = ((position + 1) * is_word).amax(1).clamp(min=1)
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
    valid.view(-1)[own_places] = is_word[is_own]
    return PackedRows(source, valid, place, prefix, first_row, is_word)


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
