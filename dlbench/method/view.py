"""What a method may see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor


class View(ABC):
    """What a method may see just before one layer: the n tokens (one per sequence) that have not exited.

    Tensors are copies; writing to them changes nothing. Properties are computed when read, so a method that answers
    from `layer` alone costs nothing. States and logits are on the backbone's device; facts about the tokens (`row`,
    `step`, `position`, `limit`) and noise are on the CPU, so that a decision made from them alone never waits for it.
    """

    layer: int
    """Index of the layer about to run, 0..depth-1."""
    depth: int
    """Number of layers of the backbone."""

    @property
    @abstractmethod
    def hidden(self) -> Tensor:
        """State that would enter the layer: [n, width]. Not available while a prompt is routed."""

    @property
    @abstractmethod
    def before(self) -> Tensor | None:
        """Input of the last layer that each token *executed*: [n, width]; None while no token has executed any.

        Not the layer below: after a skip that one's output equals `hidden`, and their cosine would be a false 1.
        A token that has executed nothing while others have gets zeros.
        """

    @property
    @abstractmethod
    def embedded(self) -> Tensor:
        """State that entered layer 0: [n, width]."""

    @property
    @abstractmethod
    def row(self) -> Tensor:
        """Index of each token's sequence within the wave: [n], int64."""

    @property
    @abstractmethod
    def step(self) -> Tensor:
        """Decode step of each token, 0 for its row's first forward after the prompt: [n], int64; -1 in a routed prompt.

        Rows enter a batch as others finish, so it differs from row to row.
        """

    @property
    @abstractmethod
    def position(self) -> Tensor:
        """Absolute position of each token, prompt included: [n], int64."""

    @property
    @abstractmethod
    def limit(self) -> Tensor:
        """Most new tokens each sequence may write: [n], int64."""

    @property
    @abstractmethod
    def memory(self) -> Tensor | None:
        """What the tokens' sequences remember: [n, m], from `Method.begin` and from answers; None where nothing is."""

    @abstractmethod
    def logits(self) -> Tensor:
        """Exit head on `hidden` (final norm and LM head, or the method's own): [n, vocabulary]. Charged to `heads`.

        As they are: what a model's generation_config makes of them (`repetition_penalty`, …) comes after.
        """

    @abstractmethod
    def foreseen(self, layer: int) -> Tensor:
        """The token that the exit head would write from the state before `layer`, were every layer run: [n], int64.

        `depth` stands for the full stack; what a model's generation_config makes of logits has been done. Not charged,
        and for methods that say `uses_future` only: deployment cannot.
        """

    @abstractmethod
    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        """Noise in [0, 1): [n, count], float64, on the CPU.

        Keyed by seed and document, and by step (per="token") and layer (per="layer"): the same whatever the batch.
        """

    @abstractmethod
    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        """`score >= threshold`, [n] bool, noting how close each call was; a threshold may be on the CPU.

        Decisions taken here and closer than the dtype's rounding are named in the samples ("tight"), so that a
        difference between two batch sizes can be told from a fault.
        """
