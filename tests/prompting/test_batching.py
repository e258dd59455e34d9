"""Groups of prompts of similar length, and those that are timed."""

import random
from types import SimpleNamespace

import pytest

from dlbench.engine import Request
from dlbench.prompting.batching import typical, waves


def prompts(count):
    lengths = random.Random(1).choices(range(5, 60), k=count)
    return [
        SimpleNamespace(request=Request(str(i), tuple(range(n)), 4), document=SimpleNamespace(index=i))
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_the_prompts_that_are_timed_are_those_of_medium_length_however_they_were_dealt(processes):
    given = prompts(100)
    dealt = [p for batch in waves(given, 8, processes) for p in batch]
    assert sorted(p.request.id for p in dealt) == sorted(p.request.id for p in given)
    timed, lengths = typical(dealt, 16), sorted(len(p.request.ids) for p in given)
    assert [len(r.ids) for r in timed] == lengths[42:58] and timed == typical(given, 16)


def test_too_few_are_repeated_under_other_ids():
    assert len({r.id for r in typical(prompts(3), 8)}) == 8
