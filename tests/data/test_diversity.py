"""How different texts are."""

from hf_talking_points.data.diversity import (
    repeated_skeletons,
    spread_sample,
)


def test_a_sample_is_spread_over_all_texts():
    texts = [str(number) for number in range(1000)]
    sample = spread_sample(texts, 10)
    assert sample == [
        "0",
        "111",
        "222",
        "333",
        "444",
        "555",
        "666",
        "777",
        "888",
        "999",
    ]
    assert spread_sample(texts, 1000) == texts
    assert spread_sample(["a"], 10) == ["a"]


def test_texts_that_differ_in_what_is_true_of_the_point_alone_have_one_skeleton():
    same = ["The dog's left ear, brown.", "The cat's right eye, black."]
    assert repeated_skeletons(same) == 100
    assert repeated_skeletons([*same, "Look for something else here.", "Hm."]) == 50
    assert repeated_skeletons([]) == 0
