import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from hf_talking_points.models.shared_prefix import RowsMask, packed_rows, rows_alike


@pytest.mark.parametrize(
    "rows, count",
    [
        ("aaaa", 4),
        ("aabb", 2),
        ("aaab", 1),
        ("abab", 1),
        ("aaaabb", 2),
        ("aaabbb", 3),
        ("a", 1),
    ],
)
def test_rows_alike(rows, count):
    numbers = torch.tensor([ord(name) for name in rows])[:, None]
    same = torch.zeros_like(numbers)
    embeds = numbers[..., None].expand(-1, 3, 2)
    assert rows_alike(numbers, same, None) == count
    assert rows_alike(same, None, numbers) == count
    assert rows_alike(embeds, same) == count
    assert rows_alike(same) == len(rows)


@settings(max_examples=150)
@given(st.data(), st.integers(1, 5), st.integers(1, 6))
def test_rows_are_packed_and_unpacked_again(data, count, length):
    image_of_row = data.draw(
        st.lists(st.integers(0, 1), min_size=count, max_size=count)
    )
    row = st.lists(st.integers(0, 1), min_size=length, max_size=length)
    ids = data.draw(st.lists(row, min_size=count, max_size=count))
    masks = data.draw(st.lists(row, min_size=count, max_size=count))
    rows, mask = torch.tensor(ids), torch.tensor(masks)
    packed = packed_rows(torch.tensor(image_of_row), mask, rows)
    is_word = mask.bool()
    assert torch.equal(packed.unpack(packed.pack(rows))[is_word], rows[is_word])
    assert packed.unpack(packed.valid)[is_word].all()
    assert packed.valid.sum() <= is_word.sum()
    first, lengths = 0, []
    for number in range(count):
        if number and image_of_row[number] != image_of_row[number - 1]:
            first = number
        prefix = 0
        if number != first:
            pairs = list(zip(ids[number], masks[number]))
            pairs_of_first = list(zip(ids[first], masks[first]))
            while prefix < length and pairs[prefix] == pairs_of_first[prefix]:
                prefix += 1
        assert packed.prefix[number] == prefix
        if number == first:
            lengths.append(0)
        words = [place for place in range(length) if masks[number][place]]
        end = words[-1] + 1 if words else 1
        lengths[-1] += max(end - prefix, 0)
    assert packed.source.shape == (len(lengths), max(lengths))


def test_a_row_sees_itself_and_what_it_shares_with_the_first():
    rows = torch.tensor([[1, 2, 3, 4], [1, 2, 5, 6], [1, 7, 8, 9]])
    mask = torch.ones_like(rows)
    packed = packed_rows(torch.zeros(3, dtype=torch.long), mask, rows)
    assert packed.pack(rows).tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    sees = packed.connected()
    position = torch.arange(9)
    connected = sees(0, 0, position[:, None], position)
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 0, 0, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 0, 1, 1, 1],
    ]
    assert connected.tril().int().tolist() == expected


@pytest.mark.parametrize("first_own", [0, 2, 7])
def test_attention_of_packed_rows_is_that_of_their_mask(first_own):
    torch.manual_seed(0)
    rows = torch.randint(2, (5, 9))
    rows[:, :first_own] = 0
    rows[:, -1] = torch.arange(5)
    words = torch.ones_like(rows)
    words[1, 8:] = words[3, 7:] = 0
    packed = packed_rows(torch.tensor([0, 0, 0, 1, 1]), words, rows)
    length = packed.source.shape[1]
    connected = packed.connected()
    runs, positions = torch.arange(2)[:, None, None], torch.arange(length)
    mask = connected(runs, 0, positions[:, None], positions)
    mask = mask.tril()[:, None]
    states = [torch.randn(2, 3, length, 4, requires_grad=True) for _ in range(3)]

    given = []
    for one_mask in (mask, RowsMask.of(torch.zeros_like(mask), packed)):
        found = scaled_dot_product_attention(*states, attn_mask=one_mask, scale=0.3)
        found = found.transpose(1, 2)[packed.valid]
        gradients = torch.autograd.grad(found.square().sum(), states)
        given.append([found, *gradients])
    torch.testing.assert_close(given[1], given[0])


def test_what_is_made_of_a_mask_of_rows_is_plain():
    rows = torch.zeros(2, 3, dtype=torch.long)
    packed = packed_rows(torch.zeros(2, dtype=torch.long), rows + 1, rows)
    mask = RowsMask.of(torch.ones(1, 1, 3, 3, dtype=torch.bool), packed)
    for made in (mask[..., :2], mask.float(), mask.to("cpu", torch.float64)):
        assert type(made) is torch.Tensor
