"""Low-rank adapters on a model's decoder layers (LoRA, Hu et al., arXiv 2106.09685), by peft.

Every plain linear map of the layers that learn gets an adapter; embedding, norms and head stay as they are, and so do
matrices that no plain linear map holds: routers, experts that transformers keeps in one parameter, convolutions. The
base is frozen, so it needs neither gradients nor optimizer state.
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
from dlbench.models.families import Family
from dlbench.system.files import write_text
from dlbench.system.paths import model_path

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
    without: tuple[str, ...]
    """The matrices of the same layers that have none, by their paths within a layer."""
    without_share: float
    """Their share of the weights of these layers, in [0, 1)."""
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
        if (path := model_path(base)) is not None:  # the adapter may be read from elsewhere
            base, name, revision = str(path.resolve()), str(path.resolve()), ""
        config.base_model_name_or_path, config.revision = name, revision or None
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
        if _adaptable(backbone.family, path, module)
    }
    named = {name: module for name, module in backbone.model.named_modules() if id(module) in maps}
    if not named or not (taken := _taken(LoraConfig(target_modules=list(named)), backbone.model)):
        raise DlbenchError(f"the layers of model {backbone.name!r} have no linear maps for adapters: leave --lora away")
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=ALPHA * rank,
        target_modules=taken,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in named.values()),
    )
    adapted = {id(module): maps[id(module)] for name, module in named.items() if name in taken}
    without, share = _left_out(backbone, layers, adapted.keys())
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads attributes that transformers has renamed
        model = get_peft_model(backbone.model, config)
    return Adapters(rank, tuple(dict.fromkeys(adapted.values())), without, share, model)


def _adaptable(family: Family, path: str, module: nn.Module) -> bool:
    """Whether a module is a linear map whose output is all that its layer takes of it.

    Routers derive from nn.Linear and return more than a product, Jamba reads the weights of `dt_proj` past its adapter,
    and peft refuses `out_proj` of Mamba 2.

    Args:
        family: the model's.
        path: of the module within its layer.
        module: any of a layer.
    """
    from transformers.models.falcon.modeling_falcon import FalconLinear

    name = path.rpartition(".")[2]
    read_past = name == "dt_proj" or (name == "out_proj" and family.recurrence == "mamba2")
    return type(module) in (nn.Linear, FalconLinear, Conv1D) and not read_past


def _taken(config: Any, model: Any) -> list[str]:
    """The targets of a configuration that peft takes as they are named.

    In families whose experts older releases of transformers kept as linear maps, it takes the name of a dense
    feed-forward or of a shared expert for that of all experts, when adapters are made and when they are read.
    """
    named = list(config.target_modules)
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # a release that renames nothing
        return named
    convert_peft_config_for_transformers(config, model, None)
    return [name for name in named if name in config.target_modules]


def _left_out(backbone: Backbone, layers: Collection[int], adapted: Collection[int]) -> tuple[tuple[str, ...], float]:
    """The matrices of layers that get no adapter, and their share of the weights of these layers.

    Args:
        backbone: before it gets adapters.
        layers: those that learn.
        adapted: ids of linear maps that get one.
    """
    parts = [part for index in sorted(layers) for part in backbone.layers[index].named_modules()]
    without = [
        (f"{path}.{name}".removeprefix(".").removesuffix(".weight"), p)
        for path, module in parts
        if id(module) not in adapted
        for name, p in module.named_parameters(recurse=False)
        if p.ndim > 1
    ]
    weights = sum(p.numel() for index in layers for p in backbone.layers[index].parameters())
    return tuple(dict.fromkeys(path for path, _ in without)), sum(p.numel() for _, p in without) / weights
