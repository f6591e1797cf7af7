import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_talking_points.models.shared_prefix import packed_rows, rows_alike


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
