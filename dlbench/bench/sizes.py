"""How much is measured: models, batches, repeats."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """A random Llama."""

    layers: int
    width: int
    heads: int
    intermediate: int
    vocabulary: int = 4096

    def __str__(self) -> str:
        return f"{self.layers} × {self.width}"


@dataclass(frozen=True)
class Sizes:
    """The sizes of one benchmark run."""

    quick: bool
    narrow: Shape = Shape(16, 192, 6, 512)
    wide: Shape = Shape(24, 1024, 16, 2816)
    wide_batches: tuple[int, ...] = (1, 16)
    """Batch sizes at which the wide model is held against generate."""
    prompt: int = 100
    """Prompt tokens of the decoding parts."""
    narrow_tokens: int = 65
    """New tokens of a timed decoding run; the first comes from the prompt."""
    narrow_rounds: int = 11
    wide_tokens: int = 17
    wide_rounds: int = 5
    documents: int = 64
    """Documents of each nano task."""
    request_batches: tuple[int, ...] = (16, 48)
    request_rounds: int = 5
    sweep_prompts: int = 64
    sweep_lengths: tuple[int, int] = (300, 360)
    """Shortest and longest prompt of the sweep, in tokens."""
    sweep_tokens: int = 48
    sweep_rounds: int = 3
    memory_rounds: int = 2
    start_rounds: int = 2
    patience: float = 120
    """Seconds after which contenders begin no further round: a slow or busy machine gets fewer repeats."""


def sizes(*, quick: bool, cuda: bool) -> Sizes:
    """The sizes for a kind of machine."""
    chosen = Sizes(quick=quick)
    if cuda:
        chosen = replace(chosen, wide=Shape(24, 2048, 16, 5632), wide_batches=(1, 32), wide_tokens=65)
    if quick:
        chosen = replace(
            chosen,
            wide=replace(chosen.wide, layers=6),
            narrow_tokens=25,
            narrow_rounds=5,
            wide_tokens=9 if not cuda else 33,
            documents=15,
            sweep_prompts=16,
            memory_rounds=1,
            start_rounds=1,
            patience=12,
        )
    return chosen
