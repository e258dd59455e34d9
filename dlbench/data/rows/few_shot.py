"""Few-shot examples: lm-eval's own draw, without examples that would give away an answer.

lm-eval leaves out the document itself where the examples' split is the test split by name, and nothing elsewhere. Here
no example asks what its document asks, nor, in prompts that methods are fitted on, what any scored document asks. Such
an example is replaced by another, or left out if there is no other. All other draws are lm-eval's.
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
    """The few-shot examples of one task.

    Args:
        inner: lm-eval's task.
        splits: the task's splits, which know what rows ask.
    """

    def __init__(self, inner: Any, splits: Splits) -> None:
        self._inner, self._splits = inner, splits
        self._known: dict[int, tuple[Row, bytes | None]] = {}
        """Identity of an example → the example, and the hash of what it asks."""

    @contextmanager
    def drawn_for(self, row: Row, split: Split) -> Iterator[None]:
        """Keep lm-eval, inside, from drawing examples that would give away an answer.

        Args:
            row: the row that a prompt is made for.
            split: whether that is scored or fitted on.
        """
        theirs, asked = self._inner.sampler, self._splits.asks(row)

        def gives_away(example: Row) -> bool:
            asks = self._asks(example)
            same = asks is not None and (asks == asked or (split == "fit" and asks in self._splits.scored))
            return same or example == row

        self._inner.sampler = _Sampler(theirs, gives_away, asked)
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
        gives_away: whether an example would give away an answer.
        seed: for drawing the examples that replace such ones.
    """

    def __init__(self, theirs: Any, gives_away: Callable[[Row], bool], seed: bytes | None) -> None:
        self._theirs, self._gives_away, self._seed = theirs, gives_away, seed

    def sample(self, n: int, **more: Any) -> Sequence[Row]:
        """Draw n examples; fewer where there are no others."""
        drawn = list(self._theirs.sample(n, **more))
        if not any(map(self._gives_away, drawn)):
            return drawn
        others = (one for one in self._others() if one not in drawn and not self._gives_away(one))
        kept = [next(others, None) if self._gives_away(example) else example for example in drawn]
        return [example for example in kept if example is not None]

    def _others(self) -> list[Row]:
        """All examples: in order where lm-eval takes the first ones, else shuffled by the row's hash."""
        from lm_eval.api.samplers import FirstNSampler

        examples = list(self._theirs.fewshot_docs())
        if not isinstance(self._theirs, FirstNSampler):
            random.Random(self._seed or b"").shuffle(examples)
        return examples
