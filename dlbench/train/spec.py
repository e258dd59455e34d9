"""The options of a training, and the checks of whether it can be carried out; imports nothing heavy."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from dlbench.data import resolve
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.models.catalog import INT8, check_device, check_model
from dlbench.records.run_folder import check_folder
from dlbench.registry import methods as registry
from dlbench.system.paths import expanded
from dlbench.terminal.suggest import unknown
from dlbench.train.recipes import RECIPES, LayerSkip, Recipe

TRAIN_FILE = "train.json"
"""Marks the output folder of a training: its options, and the quality before it."""
DTYPES = ("auto", "float32", "bfloat16")
_FREE = ("out", "device", "processes", "save_minutes", "gradient_checkpointing", "data_dir")
"""Fields that may change when a training is resumed; of the data, the hash is compared."""


@dataclass(frozen=True)
class TrainSpec:
    """One training: the options of `dlbench train`."""

    recipe: str
    tasks: tuple[str, ...]
    """Names of tasks, with suites already replaced by their tasks."""
    out: Path
    model: str = "nano"
    options: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's options, by the name of its field; others keep their defaults."""
    documents: int | None = None
    """Documents to learn from, in total; None: all of a fit split, or DRAWN per task that generates documents."""
    epochs: int | None = None
    """None: one for generated documents, two for a fit split."""
    sources: Sources = field(default_factory=Sources)
    """Where tasks come from, and options that change them."""
    lora: int | None = None
    """Rank of the adapters that are trained; None: the model's own weights."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes layers again instead of keeping their inner states: less memory, more time."""
    lr: float | None = None
    """Peak learning rate; None: that of `dlbench.train.loop.rate`."""
    warmup: float = 0.03
    """Share of the steps over which the learning rate rises; then it falls along a cosine."""
    weight_decay: float = 0.0
    batch_tokens: int = 4096
    """Tokens of a step, over all processes, without padding."""
    micro_tokens: int = 2048
    """Most tokens in one forward of one process, with padding: limited by the memory."""
    seed: int = 0
    device: str = "auto"
    dtype: str = "auto"
    """Of matrix products; weights are kept in float32."""
    processes: int = 1
    save_minutes: float = 5.0
    score: int = 48
    """Documents per task, of the tune part, that quality is measured on before and after; 0 measures nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", expanded(self.out, "--out"))

    def check(self) -> None:
        """Check all that can be checked without torch.

        Raises:
            DlbenchError: an option is invalid; the message says what would be valid.
        """
        self._check_recipe()
        check_model(self.model, self.sources.data_dir)
        if not self.tasks:
            raise DlbenchError("no task to train on: give --task, such as --task nano")
        self.sources.check(self.tasks)
        resolve.expand_tasks(self.tasks, self.sources)
        self._check_numbers()
        if self.dtype == INT8:
            raise DlbenchError("int8 weights cannot be trained: train the plain model, then run it with --dtype int8")
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        check_device(self.device)
        if self.lora is not None and importlib.util.find_spec("peft") is None:
            raise DlbenchError("--lora needs peft: pip install 'dlbench[peft]'")
        check_folder(self.out, TRAIN_FILE, "training")

    def _check_recipe(self) -> None:
        if self.recipe not in RECIPES:
            raise unknown("recipe", self.recipe, RECIPES)
        own = [f.name for f in dataclasses.fields(RECIPES[self.recipe])]
        for name in self.options:
            if name not in own:
                owner = next(r for r, cls in RECIPES.items() if name in {f.name for f in dataclasses.fields(cls)})
                raise DlbenchError(f"{OPTIONS[name]} is an option of recipe {owner}, not of {self.recipe}")
        recipe = self.build_recipe()
        if isinstance(recipe, LayerSkip) and recipe.curriculum not in ("rotational", "all"):
            raise unknown("curriculum", recipe.curriculum, ("rotational", "all"))
        if (prompt := self.options.get("prompt", "full")) not in ("full", "routed"):
            raise unknown("prompt policy", prompt, ("full", "routed"))
        if "method" in self.options:
            registry.locate(self.options["method"])
        if (budget := self.options.get("budget")) is not None and not (math.isfinite(budget) and 0 < budget <= 1):
            raise DlbenchError(f"budget {budget}: give a share of the layers above 0 and at most 1, such as 0.5")

    def _check_numbers(self) -> None:
        for name in ("documents", "epochs", "batch_tokens", "micro_tokens", "processes", "lora"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DlbenchError(f"--{name.replace('_', '-')} {value}: give at least 1")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise DlbenchError(f"--lr {self.lr}: give a learning rate above 0, such as 2e-5")
        if not 0 <= self.warmup < 1:
            raise DlbenchError(f"--warmup {self.warmup}: give a share of the steps from 0 up to, not including, 1")
        for name in ("weight_decay", "save_minutes", "score"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise DlbenchError(f"--{name.replace('_', '-')} {getattr(self, name)}: give 0 or more")
        if not 0 <= self.seed < 2**63:
            raise DlbenchError(f"seed {self.seed}: give a number from 0 to 2**63 - 1")

    def build_recipe(self) -> Recipe:
        """Return the recipe with its options."""
        return RECIPES[self.recipe](**self.options)

    @property
    def content(self) -> dict[str, Any]:
        """The options that the trained weights depend on, as JSON values."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        # older trainings name no options of tasks
        sources = {name: value for name, value in plain.pop("sources").items() if value not in (None, [])}
        return {name: value for name, value in (plain | sources).items() if name not in _FREE}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file that `dlbench.system.processes` writes for its processes."""
        content = json.loads(path.read_text())
        content["out"], content["tasks"] = Path(content["out"]), tuple(content["tasks"])
        content["sources"] = Sources.from_json(content["sources"])
        if "exits" in content["options"]:
            content["options"]["exits"] = tuple(content["options"]["exits"])
        return cls(**content)


OPTIONS = {
    "exits": "--exits",
    "p_max": "--layer-dropout",
    "scale": "--exit-scale",
    "curriculum": "--curriculum",
    "stride": "--exit-stride",
    "method": "--method",
    "params": "--set",
    "prompt": "--prompt",
    "budget": "--budget",
}
"""Field of a recipe → its option on the command line."""
