"""Examples in a prompt: lm-eval's own draw, without those that would tell an answer.

lm-eval leaves out the document itself where the examples' split is the test split by name, and nothing elsewhere. Here
no example asks what its document asks, nor, in a prompt that methods are fitted on, what is scored. Where lm-eval draws
such a one, another stands in its place, or none if there is no other. All other draws stay lm-eval's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dlbench.data.document import Split
from dlbench.data.splits import Splits

Row = Mapping[str, Any]


class Examples:
    """The examples of one task.

    Args:
        inner: lm-eval's task.
        splits: tell what rows ask.
    """

    def __init__(self, inner: Any, splits: Splits) -> None:
        self._inner, self._splits = inner, splits
        self._known: dict[int, tuple[Row, bytes | None]] = {}
        """By identity, what the examples met so far ask."""

    @contextmanager
    def drawn_for(self, row: Row, split: Split) -> Iterator[None]:
        """Inside, lm-eval draws no example that would tell an answer.

        Args:
            row: whose prompt is made.
            split: its use.
        """
        theirs, asked = self._inner.sampler, self._splits.asks(row)

        def tells(example: Row) -> bool:
            asks = self._asks(example)
            same = asks is not None and (asks == asked or (split == "fit" and asks in self._splits.scored))
            return same or example == row

        self._inner.sampler = _Sampler(theirs, tells, asked)
        try:
            yield
        finally:
            self._inner.sampler = theirs

    def _asks(self, example: Row) -> bytes | None:
        if id(example) not in self._known:
            self._known[id(example)] = example, self._splits.asks(example)
        return self._known[id(example)][1]


class _Sampler:
    """Draws for one prompt.

    Args:
        theirs: lm-eval's sampler.
        tells: whether an example would tell an answer.
        seed: of what stands in for such examples.
    """

    def __init__(self, theirs: Any, tells: Callable[[Row], bool], seed: bytes | None) -> None:
        self._theirs, self._tells, self._seed = theirs, tells, seed

    def sample(self, n: int, **more: Any) -> Sequence[Row]:
        """Draw n examples; fewer where there are no others."""
        drawn = list(self._theirs.sample(n, **more))
        if not any(map(self._tells, drawn)):
            return drawn
        others = (one for one in self._others() if one not in drawn and not self._tells(one))
        kept = [next(others, None) if self._tells(example) else example for example in drawn]
        return [example for example in kept if example is not None]

    def _others(self) -> list[Row]:
        """All examples, in their order where that is how they are taken, else in one that the prompt's row decides."""
        from lm_eval.api.samplers import FirstNSampler

        found = list(self._theirs.fewshot_docs())
        if not isinstance(self._theirs, FirstNSampler):
            random.Random(self._seed or b"").shuffle(found)
        return found
