"""The per-sequence oracle (Glavas et al., arXiv 2410.20022, section 5): the best candidate for every document.

Candidates are fixed sets of layers, run as ordinary static methods; an exact multiple-choice knapsack then chooses one
per document so that the mean quality is the best that the budget allows. It knows the references, so it is a ceiling,
not a method.

Different: the authors did not publish their candidates; these are ours, at a quarter, a half and three quarters of the
depth: prefixes, evenly spaced sets (first and last layer kept), sets with a hole in the middle, and seeded random sets
which keep layer 0; and the full set.
"""

from dataclasses import dataclass

import numpy as np

from dlbench.method import Candidate, Oracle


@dataclass
class SequenceOracle(Oracle):
    """Choose the best published candidate for each document, by knapsack."""

    families: tuple[str, ...] = ("prefix", "even", "middle", "random")
    randoms: int = 1
    """Random sets per depth."""
    seed: int = 0

    def __post_init__(self) -> None:
        known = {"prefix", "even", "middle", "random"}
        if strange := sorted(set(self.families) - known):
            raise ValueError(f"no candidate family {strange[0]!r}; there is {', '.join(sorted(known))}")
        if self.randoms < 0:
            raise ValueError(f"randoms must not be negative, got {self.randoms}")

    def candidates(self, depth: int) -> list[Candidate]:
        found: dict[tuple[int, ...], str] = {tuple(range(depth)): "full"}
        generator = np.random.default_rng(self.seed)
        for share in (0.25, 0.5, 0.75):
            keep = max(1, round(share * depth))
            sets: dict[str, set[int]] = {}
            if "prefix" in self.families:
                sets[f"prefix-{keep}"] = set(range(keep))
            if "even" in self.families and keep > 1:
                sets[f"even-{keep}"] = {round(i * (depth - 1) / (keep - 1)) for i in range(keep)}
            if "middle" in self.families:
                front = (keep + 1) // 2
                sets[f"middle-{keep}"] = {*range(front), *range(depth - (keep - front), depth)}
            if "random" in self.families:
                for i in range(self.randoms):
                    rest = generator.choice(np.arange(1, depth), keep - 1, replace=False)
                    sets[f"random-{keep}.{i}"] = {0, *rest.tolist()}
            for name, layers in sets.items():
                found.setdefault(tuple(sorted(layers)), name)
        return [Candidate(name, layers) for layers, name in found.items()]
