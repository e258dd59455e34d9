"""How figures are written in tables, charts and sentences. A figure that is missing is a dash, never NaN."""

from __future__ import annotations

import re
from collections.abc import Iterable

NOTHING = "–"


def decimals(values: Iterable[float]) -> int:
    """Return how many decimals scores need: three for metrics up to 1, one for metrics up to 100."""
    return 3 if max((abs(value) for value in values), default=0.0) <= 1.5 else 1


def score(value: float | None, places: int = 3) -> str:
    """Return a score with that many decimals."""
    return NOTHING if value is None else f"{value:.{places}f}"


def share(value: float | None) -> str:
    """Return a share as a number around 1."""
    return NOTHING if value is None else f"{value:.3f}"


def ratio(value: float | None, bounds: tuple[float, float] | None = None) -> str:
    """Return a ratio with its interval, where it has one."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if bounds is None else f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def percent(value: float) -> str:
    """Return a share in per cent with at most one decimal."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def hundredths(value: float | None) -> str:
    """Return a share in per cent with one decimal and no % sign, for columns whose heading has it."""
    return NOTHING if value is None else f"{100 * value:.1f}"


def whole(value: float | None) -> str:
    """Return a share in whole per cent."""
    return NOTHING if value is None else f"{100 * value:.0f} %"


def number(value: float | None) -> str:
    """Return a number with at most six digits."""
    return NOTHING if value is None else f"{value:.6g}"


def counted(amount: int, what: str) -> str:
    """Return an amount with its noun, in the plural unless the amount is 1."""
    return f"{amount:,} {what}" + ("" if amount == 1 else "s")


def budget(value: float | None) -> str:
    """Return a target layer share."""
    return NOTHING if value is None else f"{value:g}"


def milliseconds(value: float | None) -> str:
    """Return a duration to three digits, never in scientific notation."""
    if value is None:
        return NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def speedup(value: float | None, places: int = 2) -> str:
    """Return a speed-up as a factor."""
    return "" if value is None else f"{value:.{places}f}×"


def slug(text: str) -> str:
    """Return a text as part of a file name or anchor: letters a–z, digits and hyphens; empty where it has none."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]
