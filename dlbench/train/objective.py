"""The loss of a recipe on a model of any supported family, without changing the model's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head
from dlbench.models.layer_patch import shadowed, state_of, with_state
from dlbench.prompting.teacher_forcing import IGNORED, Batch, angles_of
from dlbench.train.recipes import Recipe


class Objective(nn.Module):
    """One forward of a batch with patched layers, and the cross entropy at every exit of the step."""

    def __init__(self, backbone: Backbone, recipe: Recipe, autocast: torch.dtype | None = None) -> None:
        """Make the backbone's model trainable.

        Args:
            backbone: in float32; its model is trained in place.
            recipe: valid for its depth.
            autocast: dtype of matrix products; None for float32.
        """
        super().__init__()
        self.model = backbone.model.requires_grad_(True)
        self.backbone, self.recipe, self.autocast = backbone, recipe, autocast
        self.skipped = frozenset(range(backbone.depth)) - recipe.layers(backbone.depth)
        self.dropout = recipe.dropout(backbone.depth)
        if recipe.routes_prompt:
            for index in self.skipped:  # no token ever runs it
                backbone.layers[index].requires_grad_(False)

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
                given = layer(hidden, *args, **kwargs)
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
            logits = {n: exit_head(self.backbone, states[n][:, :-1][learnt]) for n in wanted}  # [targets, vocabulary]
        return {n: cross_entropy(x.float(), labels[learnt], reduction="sum") for n, x in logits.items()}

    def _passing(self, index: int, batch: Batch) -> Tensor | None:
        """Tokens that skip a layer, [rows, length or 1] bool; None where there are none."""
        if index in self.skipped:
            return batch.routed > 0
        if p := self.dropout[index]:
            return (torch.rand(len(batch.ids), 1) < p).to(batch.ids.device)  # whole texts; all devices draw alike
        return None
