"""Mask2Former's masked decoder layers, through which points pass as well as object queries."""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Mask2FormerModel
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMaskedAttentionDecoderLayer,
)


class FeatureLevel(NamedTuple):
    """One level of the pixel decoder's maps, as the decoder layers attend to it.

    Args:
        keys (`torch.Tensor` of shape `(height * width, images, hidden_dim)`): also the values.
        positions (`torch.Tensor` of shape `(height * width, images, hidden_dim)`): encoding of the cells' positions.
        size (`tuple[int, int]`): height and width.
    """

    keys: torch.Tensor
    positions: torch.Tensor
    size: tuple[int, int]


class MaskedCrossAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that calls its output projection instead of reading its weights, so that these may be
    offloaded, or adapted by LoRA."""

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, None]:
        """
        Args:
            query (`torch.Tensor` of shape `(queries, images, dim)`)
            key, value (`torch.Tensor` of shape `(cells, images, dim)`)
            attn_mask (bool `torch.Tensor` of shape `(images * attention heads, queries, cells)`, *optional*): True
                where a query may not attend.
        Returns:
            (`torch.Tensor` of shape `(queries, images, dim)`, None: the attention weights are not kept).
        """
        projections = zip(self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3))
        states = []
        for states_in, (weight, bias) in zip((query, key, value), projections):
            projected = nn.functional.linear(states_in, weight, bias)
            per_head = projected.unflatten(-1, (self.num_heads, self.head_dim))
            states.append(per_head.permute(1, 2, 0, 3))  # (images, heads, length, dim)
        attended = None
        if attn_mask is not None:
            attended = ~attn_mask.unflatten(0, (-1, self.num_heads))
        dropout = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(*states, attended, dropout)
        mixed = mixed.permute(2, 0, 1, 3).flatten(2)  # (queries, images, dim)
        return self.out_proj(mixed), None


class MaskedDecoderLayer(Mask2FormerMaskedAttentionDecoderLayer):
    """A masked decoder layer that object queries pass together and points apart."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        *args: Any,
        apart: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(queries, images, hidden_dim)`)
            apart (`bool`): the queries are points, and the other arguments those of [`decode_points`]; else they are
                Mask2Former's.
        """
        if apart:
            return self.decode_points(hidden_states, *args, **kwargs)
        return super().forward(hidden_states, *args, **kwargs)

    def decode_points(
        self,
        query: torch.Tensor,
        query_pos: torch.Tensor,
        keys: torch.Tensor,
        positions: torch.Tensor,
        blocked: torch.Tensor | None,
    ) -> torch.Tensor:
        """Cross-attention, self-attention and feed-forward layers over points that do not see each other.

        Args:
            query (`torch.Tensor` of shape `(points, images, hidden_dim)`), query_pos (likewise)
            keys, positions: of the [`FeatureLevel`] that is attended to.
            blocked (bool `torch.Tensor` of shape `(images * attention heads, points, height * width)`, *optional*)
        Returns:
            `torch.Tensor` of shape `(points, images, hidden_dim)`: the next query.
        """
        attended, _ = self.cross_attn(
            query + query_pos, keys + positions, keys, attn_mask=blocked
        )
        query = self.cross_attn_layer_norm(query + attended)
        # (1, points * images, hidden_dim): with one query per entry, self-attention sees one point
        alone = query.flatten(0, 1)[None]
        alone_pos = query_pos.flatten(0, 1)[None]
        attended, _ = self.self_attn(alone, position_embeddings=alone_pos)
        query = self.self_attn_layer_norm(query + attended.view_as(query))
        hidden = self.activation_fn(self.fc1(query))
        return self.final_layer_norm(query + self.fc2(hidden))


def let_points_pass(vision_tower: Mask2FormerModel) -> None:
    """Gives the masked decoder layers of a vision tower the forward passes of this file; their weights stay."""
    for layer in vision_tower.transformer_module.decoder.layers:
        layer.__class__ = MaskedDecoderLayer
        layer.cross_attn.__class__ = MaskedCrossAttention


def call_by_name(vision_tower: Mask2FormerModel) -> None:
    """Lets the mask predictor of a vision tower call its layers by their names, by which adapters and quantization
    replace them. As transformers builds it, it calls those of a list, in which the replaced ones stay."""
    predictor = vision_tower.transformer_module.decoder.mask_predictor
    blocks = [
        nn.Sequential(*block.children()) for block in predictor.mask_embedder.children()
    ]
    predictor.mask_embedder = nn.Sequential(*blocks)


def rows_of(embedding: nn.Module, count: int, device: torch.device) -> torch.Tensor:
    """The first `count` rows of an embedding, `(count, dim)`, by calling it: its weights may be offloaded, adapted or
    sharded until then."""
    return embedding(torch.arange(count, device=device))
