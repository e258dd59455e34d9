"""What a method sees when it decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor


class View(ABC):
    """State before one layer of the n tokens (one per sequence) that have not exited.

    Tensors are copies; writing to them changes nothing. Properties are computed when read, so a method that uses only
    `layer` costs nothing. States and logits are on the backbone's device; `row`, `step`, `position`, `limit` and noise
    are on the CPU, so a decision from them alone never waits for the device.
    """

    layer: int
    """Index of the layer about to run, 0..depth-1."""
    depth: int
    """Number of layers of the backbone."""

    @property
    @abstractmethod
    def hidden(self) -> Tensor:
        """Input of the layer: [n, width], in the backbone's dtype. Reading it in a routed prompt is an error."""

    @property
    @abstractmethod
    def before(self) -> Tensor | None:
        """Input of the last layer that each token *executed*: [n, width]; None while no token has executed any.

        In the backbone's dtype. Reading it in a routed prompt is an error.

        This is not the input of the previous layer: after a skip that equals `hidden`, and their cosine would be 1 for
        no reason. A token that has executed no layer while others have gets zeros.
        """

    @property
    @abstractmethod
    def embedded(self) -> Tensor:
        """Input of layer 0: [n, width], in the backbone's dtype. Reading it in a routed prompt is an error."""

    @property
    @abstractmethod
    def row(self) -> Tensor:
        """Index of each token's sequence within the wave: [n], int64."""

    @property
    @abstractmethod
    def step(self) -> Tensor:
        """Decode step of each token, 0 for its row's first forward after the prompt: [n], int64; -1 in a routed prompt.

        Rows enter a batch as others end, so steps differ between rows.
        """

    @property
    @abstractmethod
    def position(self) -> Tensor:
        """Absolute position of each token, prompt included: [n], int64."""

    @property
    @abstractmethod
    def limit(self) -> Tensor:
        """Maximum number of new tokens of each sequence: [n], int64."""

    @property
    @abstractmethod
    def memory(self) -> Tensor | None:
        """Memory of the tokens' sequences, from `Method.begin` and `Route.memory`: [n, m]; None where there is none."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Exit head on `hidden` (final norm and LM head, or the method's own): [n, vocabulary]. Charged to `heads`.

        Before the processors of the model's generation_config (`repetition_penalty`, …).
        """

    @abstractmethod
    def foreseen(self, layer: int) -> Tensor:
        """Token that the exit head predicts from the state before `layer` when every layer runs: [n], int64.

        `depth` means the full stack; the processors of the model's generation_config are applied. Not charged, and only
        for methods that declare `uses_future`: deployment does not have it.
        """

    @abstractmethod
    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        """Noise in [0, 1): [n, count], float64, on the CPU.

        Keyed by seed and document, with per="token" also by step, with per="layer" by step and layer; it does not
        depend on the batch.
        """

    @abstractmethod
    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        """`score >= threshold`, [n] bool; near ties are recorded. The threshold may be on the CPU.

        A score closer to the threshold than the dtype's rounding error is marked in the samples ("tight"): such a
        decision may differ between batch sizes without a fault.
        """
