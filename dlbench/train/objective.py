"""The loss of a recipe on a model of any supported family, without changing the model's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head
from dlbench.models.layer_patch import shadowed, state_of, with_state
from dlbench.prompting.teacher_forcing import IGNORED, Batch, angles_of
from dlbench.train.recipes import Recipe


class Objective(nn.Module):
    """One forward of a batch with patched layers, and the cross entropy at every exit of the step."""

    def __init__(
        self,
        backbone: Backbone,
        recipe: Recipe,
        autocast: torch.dtype | None = None,
        *,
        adapted: bool = False,
        recompute: bool = False,
    ) -> None:
        """Make the backbone's model trainable.

        Args:
            backbone: in float32; its model is trained in place.
            recipe: valid for its depth.
            autocast: dtype of matrix products; None for float32.
            adapted: whether only the adapters learn that the model has; its own weights may then be bfloat16.
            recompute: whether the backward pass computes layers and exits again, instead of keeping all that is in
                them (gradient checkpointing).
        """
        super().__init__()
        self.model = backbone.model
        self.backbone, self.recipe, self.autocast = backbone, recipe, autocast
        self.adapted, self.recompute = adapted, recompute
        self.skipped = frozenset(range(backbone.depth)) - recipe.layers(backbone.depth)
        self.dropout = recipe.dropout(backbone.depth)
        if not adapted:
            self.model.requires_grad_(True)
            for index in set(range(backbone.depth)) - learning(recipe, backbone.depth):
                backbone.layers[index].requires_grad_(False)

    def weights(self) -> dict[str, Tensor]:
        """Return the state that training changes, by name: of the adapters alone, or of the whole model."""
        state: dict[str, Tensor] = self.model.state_dict()
        if not self.adapted:
            return state
        learnt = {name for name, p in self.model.named_parameters() if p.requires_grad}
        return {name: value for name, value in state.items() if name in learnt}

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take over what `weights` returned.

        Raises:
            KeyError: they are of another model, or of other adapters.
        """
        if different := weights.keys() ^ self.weights().keys():
            raise KeyError(f"not the same weights: {min(different)}")
        self.model.load_state_dict(weights, strict=False)

    def forward(self, batch: Batch, step: int) -> dict[int, Tensor]:
        """Return the cross entropy summed over the targets, by exit.

        Args:
            batch: texts, padded on the right: causal attention does not see the padding, so no mask is needed.
            step: on which the exits that have a loss depend.
        """
        wanted = self.recipe.weights(self.backbone.depth, step)
        states: dict[int, Tensor] = {}

        def around(index: int, layer: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if index in self.skipped and self.recipe.routes_prompt:
                given = (hidden, None) if self.backbone.family.returns_tuple else hidden
            else:
                given = self._run(layer, hidden, *args, **kwargs)
                if (passing := self._passing(index, batch)) is not None:
                    given = with_state(given, torch.where(passing[..., None], hidden, state_of(given)))
            if index + 1 in wanted:
                states[index + 1] = state_of(given)
            return given

        labels = batch.labels[:, 1:]
        learnt = labels != IGNORED
        with torch.autocast(batch.ids.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            with shadowed(dict(enumerate(self.backbone.layers)), around), angles_of(self.backbone, batch):
                self.model.base_model(input_ids=batch.ids, use_cache=False)
            return {n: self._run(self._entropy, states[n][:, :-1][learnt], labels[learnt]) for n in wanted}

    def _entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of states at an exit, [targets, width], summed over the targets."""
        logits = exit_head(self.backbone, states)  # [targets, vocabulary]
        return cross_entropy(logits.float(), targets, reduction="sum")

    def _run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a part of the forward, whose inner states are kept for the backward pass, or computed again there."""
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(work, *args, use_reentrant=False, **kwargs)
        return work(*args, **kwargs)

    def _passing(self, index: int, batch: Batch) -> Tensor | None:
        """Tokens that skip a layer, [rows, length or 1] bool; None where there are none."""
        if index in self.skipped:
            return batch.routed > 0
        if p := self.dropout[index]:
            return (torch.rand(len(batch.ids), 1) < p).to(batch.ids.device)  # whole texts; all devices draw alike
        return None


def learning(recipe: Recipe, depth: int) -> frozenset[int]:
    """Return the layers that any token runs in a training, and which therefore learn."""
    return recipe.layers(depth) if recipe.routes_prompt else frozenset(range(depth))
