"""Low-rank adapters on a model's decoder layers (LoRA, Hu et al., arXiv 2106.09685), by peft.

Every linear map of the layers that learn gets an adapter; embedding, norms and head stay as they are. The base is
frozen, so it needs neither gradients nor optimizer state.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone
from dlbench.system.files import write_text

ALPHA = 2
"""alpha ÷ rank: what an adapter adds is multiplied by it."""
ADAPTER = "adapter"
"""Folder of the adapter, in the folder of the merged model."""


@dataclass(frozen=True)
class Adapters:
    """The adapters of a backbone, whose linear maps run them from now on."""

    rank: int
    modules: tuple[str, ...]
    """The linear maps that have one, by their paths within a layer."""
    peft: Any
    """The PeftModel around the backbone's model."""

    @property
    def alpha(self) -> int:
        return ALPHA * self.rank

    def save(self, folder: Path, base: str) -> None:
        """Write the adapter alone, in peft's format.

        Args:
            folder: where to; made where it is not there.
            base: the model that it belongs to, as the user gave it: a folder or `name@revision`.
        """
        config = self.peft.active_peft_config
        name, _, revision = base.partition("@")
        folder_given = Path(base).expanduser().is_dir()
        config.base_model_name_or_path, config.revision = (base, None) if folder_given else (name, revision or None)
        config.target_modules = sorted(config.target_modules)
        self.peft.save_pretrained(folder, save_embedding_layers=False)
        where = f"rank {self.rank}, alpha {self.alpha}, on {', '.join(self.modules)} of the decoder layers"
        write_text(
            folder / "README.md",
            f"# LoRA adapter\n\nFor `{base}`: {where}. The folder that holds this one is the model with the adapter "
            "merged; its card says how it was trained.\n",
        )

    def merge(self) -> None:
        """Add the adapters to the weights; the model is an ordinary one again."""
        self.peft.merge_and_unload()


def attach(backbone: Backbone, rank: int, layers: Collection[int], seed: int) -> Adapters:
    """Give linear maps of a backbone adapters that add nothing yet, and freeze everything else.

    Args:
        backbone: its model is changed in place.
        rank: of the adapters; no larger than helps a narrow linear map.
        layers: those that learn.
        seed: of the adapters' first factors.

    Raises:
        DlbenchError: the layers have no linear maps.
    """
    from peft import LoraConfig, get_peft_model

    maps = {
        id(module): path
        for index in sorted(layers)
        for path, module in backbone.layers[index].named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    if not maps:
        raise DlbenchError(f"the layers of model {backbone.name!r} have no linear maps for adapters: leave --lora away")
    named = {name: module for name, module in backbone.model.named_modules() if id(module) in maps}
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=ALPHA * rank,
        target_modules=list(named),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in named.values()),
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads attributes that transformers has renamed
        model = get_peft_model(backbone.model, config)
    return Adapters(rank, tuple(dict.fromkeys(maps.values())), model)
