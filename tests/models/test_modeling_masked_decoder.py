import copy

import pytest
import torch
from torch import nn

from hf_talking_points.models.modeling_masked_decoder import (
    MaskedCrossAttention,
    let_points_pass,
    rows_of,
)

QUERIES, CELLS, IMAGES, DIM, HEADS = 3, 20, 2, 32, 4


@pytest.fixture
def attentions():
    """(`nn.MultiheadAttention`, the same weights as a [`MaskedCrossAttention`])."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(DIM, HEADS).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    ours = MaskedCrossAttention(DIM, HEADS).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def states():
    torch.manual_seed(1)
    keys = torch.randn(CELLS, IMAGES, DIM)
    return torch.randn(QUERIES, IMAGES, DIM), keys, keys + 1


@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_is_that_of_torch(attentions, masked):
    blocked = None
    if masked:
        blocked = torch.rand(IMAGES * HEADS, QUERIES, CELLS) < 0.7
        blocked[..., 0] = False
    gradients = []
    for attention in attentions:
        output, _ = attention(*states(), attn_mask=blocked)
        output.square().mean().backward()
        gradients.append([weight.grad for weight in attention.parameters()])
        gradients[-1].append(output.detach())
    torch.testing.assert_close(*gradients)


def test_cross_attention_calls_its_output_projection(attentions):
    _, attention = attentions
    before, _ = attention(*states())
    attention.out_proj.register_forward_hook(lambda *arguments: arguments[-1] + 1)
    after, _ = attention(*states())
    torch.testing.assert_close(after, before + 1)


def test_points_pass_a_layer_as_if_alone_and_object_queries_as_before(
    make_vision_tower,
):
    torch.manual_seed(0)
    tower = make_vision_tower()
    before = copy.deepcopy(tower).eval()
    let_points_pass(tower.eval())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = before(pixels).transformer_decoder_last_hidden_state
        queries = tower(pixels).transformer_decoder_last_hidden_state
        torch.testing.assert_close(queries, expected)
        layer = tower.transformer_module.decoder.layers[0]
        query, keys, positions = states()
        together = layer(query, query + 1, keys, positions, None, apart=True)
        for point in range(QUERIES):
            one = query[point : point + 1]
            alone = layer(one, one + 1, keys, positions, None, apart=True)
            torch.testing.assert_close(together[point : point + 1], alone)


def test_rows_of_an_embedding():
    embedding = nn.Embedding(5, 3)
    rows = rows_of(embedding, 4, torch.device("cpu"))
    assert torch.equal(rows, embedding.weight[:4])
