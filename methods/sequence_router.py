"""The deployable counterpart of the per-sequence oracle, which the paper leaves open (arXiv 2410.20022, section 5).

From the prompt's states, which a full-depth prefill leaves for nothing, it predicts how each published candidate would
score on this document, and takes the one with the best of predicted score - price · layers. The price is the knob. It
learns from the candidates' free-running scores on the documents to learn from, by ridge regression on the states'
principal components, with the candidate's mean score as what it falls back on where the states tell nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dlbench.method import Action, Candidate, Knob, LayerSet, Method, Probe, Prompt, Scope, View


@dataclass
class SequenceRouter(Method):
    """Choose one of several fixed sets of layers per document, from the states of its prompt."""

    fitted: ClassVar[bool] = True
    knob: ClassVar[Knob | None] = Knob("price", 4.0, -4.0)

    price: float = 0.0
    """What a share of all layers costs, in units of the score; negative prices buy layers for their own sake."""
    depths: tuple[float, ...] = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
    """Shares of the layers for which there are candidates: evenly thinned sets and prefixes."""
    states: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Places in the stack, as shares of the depth, whose states are read."""
    components: int = 16
    """Principal components of the states."""
    ridge: float = 10.0
    """Strength of the regularisation."""
    blind: bool = False
    """Read no states: the control, one candidate for all documents."""
    _learnt: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.depths or not all(0 < d <= 1 for d in self.depths):
            raise ValueError("depths must name at least one share in (0, 1]: there would be no candidate")
        if not self.states or not all(0 <= s <= 1 for s in self.states):
            raise ValueError("states must name at least one place in [0, 1]")
        if self.components < 1 or self.ridge <= 0:
            raise ValueError("components must be at least 1, ridge above 0")

    @property
    def scope(self) -> Scope:
        return "sequence"

    def candidates(self, depth: int) -> list[Candidate]:
        """The sets it chooses from."""
        found: dict[tuple[int, ...], str] = {}
        for share in self.depths:
            keep = max(1, round(share * depth))
            found.setdefault(
                tuple(sorted({round(i * (depth - 1) / max(1, keep - 1)) for i in range(keep)})), f"even-{keep}"
            )
            found.setdefault(tuple(range(keep)), f"prefix-{keep}")
        return [Candidate(name, layers) for layers, name in found.items()]

    def reads(self, depth: int) -> frozenset[int]:
        return frozenset(round(s * depth) for s in self.states)

    def _features(self, prompt: Prompt) -> Tensor:
        """Last and mean states, each of a mean square of 1: [n, places · 2 · width]."""
        found = []
        for layer in sorted(self.reads(prompt.depth)):
            for state in (prompt.last(layer).float(), prompt.mean(layer).float()):
                found.append(state * state.square().mean(-1, keepdim=True).add(1e-6).rsqrt())
        return torch.cat(found, -1)

    def fit(self, probe: Probe) -> None:
        candidates = self.candidates(probe.depth)
        columns = []
        for number, c in enumerate(candidates):
            written = probe.run(LayerSet(c.layers), "learn")
            columns.append([w.score for w in written])
            probe.say(number + 1, len(candidates))
        scores = torch.tensor(columns, dtype=torch.float64).T  # [documents, candidates]
        x = self._features(probe.prompts(sorted(self.reads(probe.depth)), "learn")).double()
        centre = x.mean(0)
        _, _, axes = torch.linalg.svd(x - centre, full_matrices=False)
        axes = axes[: min(self.components, len(x) - 1)]
        z = (x - centre) @ axes.T
        size = z.std(0).clamp(min=1e-6)
        z = z / size
        mean = scores.mean(0)
        system = z.T @ z + self.ridge * torch.eye(z.shape[1], dtype=z.dtype)
        slopes = torch.linalg.solve(system, z.T @ (scores - mean))
        if self.blind:
            slopes = torch.zeros_like(slopes)
        self._learnt = {
            "centre": centre.float(),
            "axes": (axes / size[:, None]).float().contiguous(),
            "slopes": slopes.float().contiguous(),
            "mean": mean.float(),
        }

    def begin(self, prompt: Prompt) -> Tensor:
        if not self._learnt:
            raise ValueError("nothing is learnt yet: run `dlbench fit sequence_router`")
        x = self._features(prompt)
        learnt = {name: tensor.to(x.device) for name, tensor in self._learnt.items()}
        predicted = learnt["mean"] + (x - learnt["centre"]) @ learnt["axes"].T @ learnt["slopes"]
        candidates = self.candidates(prompt.depth)
        layers = torch.zeros(len(candidates), prompt.depth, device=x.device)
        for number, c in enumerate(candidates):
            layers[number, list(c.layers)] = 1
        best = (predicted - self.price * layers.mean(1)).argmax(1)
        return layers[best]

    def route(self, view: View) -> Action | Tensor:
        assert view.memory is not None  # from `begin`
        return view.memory[:, view.layer] > 0

    def weights(self) -> dict[str, Tensor]:
        return dict(self._learnt)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self._learnt = dict(weights)
