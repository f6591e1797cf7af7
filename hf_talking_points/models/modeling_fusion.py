"""Words and map cells that attend to each other before cells are scored.

As in SAM's mask decoder (Kirillov et al., arXiv 2304.02643) both sides are updated: words look at the cells, then at
each other, then the cells look at the words. So a cell that is scored knows what it is beside, and what is said of it.
"""

from collections.abc import Callable

import torch
from torch import nn

from .configuration_talking_points import PointLocalizerConfig

HEAD_DIM = 32  # width of an attention head


def heads_of(sequence: torch.Tensor) -> torch.Tensor:
    """`(rows, length, dim)` -> `(rows, heads, length, 32)`."""
    return sequence.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)


def eager_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None,
) -> torch.Tensor:
    """What `scaled_dot_product_attention` computes, which on a CPU trains slower than this in bfloat16."""
    scores = query @ key.transpose(-2, -1) / HEAD_DIM**0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).to(value.dtype) @ value


class FusionAttention(nn.Module):
    """Attention of one sequence to another or to itself, then a feed-forward block; both normalize their inputs.

    Args:
        config ([`PointLocalizerConfig`]): `head_dim` is the width of the sequences, `fusion_dropout` the chance that a
            word or cell is not updated by one of both, in training.
    """

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.head_dim
        self.query_norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, dim)
        self.kv_proj = nn.Linear(dim, 2 * dim)
        self.o_proj = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 2 * dim),
            nn.GELU(),
            nn.Linear(2 * dim, dim),
        )
        self.dropout = nn.Dropout1d(config.fusion_dropout)  # whole vectors

    def forward(
        self,
        states: torch.Tensor,
        source: torch.Tensor,
        source_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(rows, length, dim)`): what is updated.
            source (`torch.Tensor` of shape `(rows, source_length, dim)`): what it looks at.
            source_mask (bool `torch.Tensor` of shape `(rows, source_length)`, *optional*): False = padding.
        Returns:
            `torch.Tensor` of shape `(rows, length, dim)`.
        """
        query = self.q_proj(self.query_norm(states))
        key, value = self.kv_proj(self.source_norm(source)).chunk(2, -1)
        query, key, value = (heads_of(part) for part in (query, key, value))
        if source_mask is not None:
            source_mask = source_mask[:, None, None]  # for every head and query
        attended = self.attention(query, key, value, source_mask)
        update = self.o_proj(attended.transpose(1, 2).flatten(2))
        states = states + self.dropout(update)
        return states + self.dropout(self.mlp(states))

    @property
    def attention(self) -> Callable[..., torch.Tensor]:
        """That of the language model: "eager", or the fused one."""
        if self.config.text_config._attn_implementation == "eager":
            return eager_attention
        return nn.functional.scaled_dot_product_attention


class FusionLayer(nn.Module):
    """Words look at the cells, then at each other, then the cells look at the words.

    Args:
        config ([`PointLocalizerConfig`])
    """

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__()
        self.words_see_cells = FusionAttention(config)
        self.words_see_words = FusionAttention(config)
        self.cells_see_words = FusionAttention(config)

    def forward(
        self, words: torch.Tensor, cells: torch.Tensor, word_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            words (`torch.Tensor` of shape `(rows, length, dim)`)
            cells (`torch.Tensor` of shape `(rows, cells, dim)`)
            word_mask (bool `torch.Tensor` of shape `(rows, length)`, *optional*): False = padding.
        Returns:
            both, updated.
        """
        words = self.words_see_cells(words, cells)
        words = self.words_see_words(words, words, word_mask)
        return words, self.cells_see_words(cells, words, word_mask)


class TextMapFusion(nn.Module):
    """Layers in which a language model's states and the cells of a coarse map attend to each other.

    Args:
        config ([`PointLocalizerConfig`])
    """

    def __init__(self, config: PointLocalizerConfig) -> None:
        super().__init__()
        dim = config.head_dim
        self.word_projection = nn.Sequential(
            nn.Linear(config.text_config.hidden_size, dim), nn.LayerNorm(dim)
        )
        self.reader = FusionAttention(config)
        self.layers = nn.ModuleList(
            FusionLayer(config) for _ in range(config.fusion_layers)
        )

    def forward(
        self, states: torch.Tensor, mask: torch.Tensor | None, cells: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            states (`torch.Tensor` of shape `(rows, length, hidden)`): the language model's last hidden states.
            mask (`torch.Tensor` of shape `(rows, length)`, *optional*): 0 = padding.
            cells (`torch.Tensor` of shape `(rows, cells, head_dim)`): of the image of each row.
        Returns:
            (words, cells) of shape `(rows, length, head_dim)` and `(rows, cells, head_dim)`.
        """
        mask = None if mask is None else mask.bool()
        words = self.word_projection(states)
        words = self.reader(words, words, mask)
        for layer in self.layers:
            words, cells = layer(words, cells, mask)
        return words, cells


__all__ = ["FusionAttention", "FusionLayer", "TextMapFusion"]
