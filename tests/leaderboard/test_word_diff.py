from hypothesis import given
from hypothesis import strategies as st

from dlbench.leaderboard.pages.word_diff import LONGEST, word_diff

TEXT = st.lists(st.sampled_from(["a", "b", "c", "the", " ", "\n", "  d"]), max_size=14).map(" ".join)


def test_words_that_the_other_lacks_are_told_apart():
    old, new = word_diff("the red house stands by the river", "the blue house is by a river bank")
    assert [piece for same, piece in old if same] == ["the", " house", " by", " river"]
    assert [piece for same, piece in new if not same] == [" blue", " is", " a", " bank"]


def test_white_space_makes_no_other_word():
    old, new = word_diff("so  it\nis", "so it is")
    assert all(same for same, _ in old + new)


@given(TEXT, TEXT)
def test_the_pieces_are_the_texts_and_what_is_shared_is_a_longest_common_subsequence(old, new):
    first, second = word_diff(old, new)
    assert "".join(piece for _, piece in first) == old
    assert "".join(piece for _, piece in second) == new
    kept = [" ".join(piece for same, piece in parts if same).split() for parts in (first, second)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == longest(old.split(), new.split())


def longest(first, second):
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_texts_beyond_reading_are_not_compared():
    long = "word " * (LONGEST + 1)
    assert word_diff(long, "word") == ([(False, long)], [(False, "word")])
    assert word_diff(long, long)[0] == [(True, long)]
    assert word_diff("", "") == ([], [])
