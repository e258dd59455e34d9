"""Statistics that a mean score hides: the worst documents, outputs of the wrong length, and repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlbench.data.scoring.words import pieces

_GRAM = 4


def beside(
    outputs: Sequence[str], references: Sequence[Sequence[str]], full: Sequence[str], scores: Sequence[float]
) -> dict[str, float]:
    """Return the statistics that records give beside a mean, by their names there.

    Args:
        outputs: generated texts, one per document, without their stop strings.
        references: of each document.
        full: texts that full depth generated for the same documents.
        scores: under the primary metric.
    """
    statistics = {"worst_decile": worst_decile(scores), "repetition": sum(map(repetition, outputs)) / len(outputs)}
    closest = [_closest(output, several) for output, several in zip(outputs, references, strict=True)]
    for name, against in (("length_ratio_reference", closest), ("length_ratio_full", full)):
        if (ratio := length_ratio(outputs, against)) is not None:
            statistics[name] = ratio
    return statistics


def worst_decile(scores: Sequence[float]) -> float:
    """Return the mean of the lowest tenth of the scores, of at least one score."""
    count = math.ceil(len(scores) / 10)
    return sum(sorted(scores)[:count]) / count


def length_ratio(outputs: Sequence[str], against: Sequence[str]) -> float | None:
    """Return characters of all outputs ÷ those of other texts, runs of white space as one; None if those are empty."""
    whole = sum(map(_length, against))
    return sum(map(_length, outputs)) / whole if whole else None


def repetition(text: str) -> float:
    """Return the share of a text's word 4-grams that occurred in it before; 0 for a shorter text.

    Words are separated by spaces; in a script without spaces each letter is a word.
    """
    words = [word for run in text.split() for word in pieces(run)]
    grams = [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _length(text: str) -> int:
    return len(" ".join(text.split()))


def _closest(output: str, references: Sequence[str]) -> str:
    """The reference whose length is nearest to the output's, the shorter of two as near."""
    return min(references, key=lambda r: (abs(_length(r) - _length(output)), _length(r)))
