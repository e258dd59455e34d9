"""Statistics of texts that records give beside the mean score, computed by hand."""

import pytest

from dlbench.evaluation.text_stats import beside, length_ratio, repetition, worst_decile


@pytest.mark.parametrize(
    ("scores", "worst"),
    [
        ([0.5], 0.5),
        ([0.9, 0.1, 0.5], 0.1),
        ([i / 10 for i in range(10)], 0.0),
        ([i / 20 for i in range(20)][::-1], 0.025),
        ([1.0] * 20 + [0.4], 0.8),
    ],
)
def test_the_worst_decile_is_the_mean_of_the_lowest_tenth(scores, worst):
    """Of 21 documents the lowest three count: 0.4, 1 and 1."""
    assert worst_decile(scores) == pytest.approx(worst)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0),
        ("a b c", 0),
        ("a b c d", 0),
        ("a b c d a b c d", 1 / 5),  # abcd bcda cdab dabc abcd
        ("x x x x x x", 2 / 3),
        ("x  x\nx x x", 1 / 2),
    ],
)
def test_repetition_is_the_share_of_four_grams_seen_before(text, share):
    assert repetition(text) == pytest.approx(share)


def test_length_ratios_are_of_all_characters_together():
    assert length_ratio(["ab", "abcdef"], ["abcd", "abcd"]) == 1
    assert length_ratio(["a \n b", ""], ["abcdef", ""]) == 0.5
    assert length_ratio(["a"], [""]) is None


def test_the_reference_nearest_in_length_counts():
    found = beside(["abcd"], [["ab", "abcde", "abcdefghij"]], ["abcdefgh"], [0.3])
    assert found == {"worst_decile": 0.3, "repetition": 0, "length_ratio_reference": 0.8, "length_ratio_full": 0.5}
    assert beside(["abc"], [["abcd", "ab"]], ["abc"], [1.0])["length_ratio_reference"] == 1.5  # as near: the shorter
    assert beside(["abc"], [["abc"]], [""], [1.0]).keys() == {"worst_decile", "repetition", "length_ratio_reference"}
