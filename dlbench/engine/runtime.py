"""What every wave of an engine shares: backbone, gates, kernels, and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, final

from torch import nn

from dlbench.engine.flops.costs import Costs
from dlbench.engine.interfaces import ModelStep
from dlbench.engine.kernels.cuda_graphs import recorder
from dlbench.engine.kernels.fuse import NotFused, fuse
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.fused_model import FusedModel, NotFusedModel
from dlbench.engine.kernels.graph_pool import GraphPool
from dlbench.engine.kernels.linear import quick
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.layers.gating import Gates
from dlbench.engine.logits_processors import Processors
from dlbench.engine.requests import Request
from dlbench.engine.shared_prefix import PrefixSharing
from dlbench.engine.stop_strings import Stopper
from dlbench.models.backbone import Backbone
from dlbench.models.generation_config import wishes


@final
class Runtime:
    """A backbone with everything that its waves run on. It holds no weights of its own."""

    def __init__(self, backbone: Backbone, *, metered: bool, kernels: Literal["auto", "stock"]) -> None:
        """Prepare; see `Engine`."""
        self.backbone, self.metered = backbone, metered
        self.costs = Costs(backbone)
        self.fused_model: FusedModel | None = None
        """Replaces the model's forward for one new token per row; None where the model's own runs."""
        self._note = ""
        fused: list[FusedLayer] | None = None
        if kernels == "auto":
            try:
                fused = fuse(backbone)
                self.fused_model = FusedModel(backbone, fused)
            except (NotFused, NotFusedModel) as reason:
                self._note = str(reason)
        self.graph_pool: GraphPool | None = None
        """Decode steps captured on a GPU; None without a GPU or a fused model."""
        if self.fused_model is not None and (record := recorder(backbone.device)) is not None:
            self.graph_pool = GraphPool(self.fused_model, record)
        own = kernels == "stock" or backbone.family.needs_rows
        faster: Callable[[nn.Module], Callable[..., Any] | None] = (lambda module: None) if own else quick
        self.gates = Gates(backbone, fused, faster)
        # a state cannot go back to where prompts part; angles by the length of a prompt are those of the whole
        self.sharing = PrefixSharing(usable=not backbone.recurrent and self.gates.rotary is None)
        """Whether and when the prompts of a wave share what they begin with."""
        self.wishes = wishes(backbone.model)
        """What the model's generation_config asks for."""
        self.stopper = Stopper(backbone.tokenizer, (backbone.ends.spelled, *self.wishes.stops))

    def processors(self, requests: Sequence[Request]) -> Processors | None:
        """The logits processors that the model's generation_config asks for, for some rows; None for none.

        Raises:
            DlbenchError: it asks for something that is not supported.
        """
        self.wishes.heed(self.backbone.name)
        return Processors(self.backbone, self.wishes, requests) if self.wishes.processed else None

    @property
    def reread_after(self) -> int | None:
        """Tokens after which a text is read again with other rotary angles, as `generate` does; None: never."""
        return None if self.gates.rotary is None else self.gates.rotary.reread_after

    def may_be_reread(self, requests: Sequence[Request]) -> int:
        """How many texts may be read again while they are written; the last token that is written is never read."""
        limit = self.reread_after
        return 0 if limit is None else sum(len(r.ids) <= limit < len(r.ids) + r.limit - 1 for r in requests)

    @property
    def kernels(self) -> str:
        """What runs decode steps: "stock" layers, "fused" layers, or "captured" ones, fused and as CUDA graphs."""
        if self.gates.fused is None:
            return "stock"
        return "fused" if self.graph_pool is None or self.graph_pool.failed else "captured"

    @property
    def kernels_note(self) -> str:
        """Why layers or steps are not fused or captured although they were asked to be; empty otherwise."""
        return self._note or ("" if self.graph_pool is None else self.graph_pool.failed)

    def model_step(self, cache: RowCache, policy: KVPolicy | None) -> ModelStep | None:
        """What runs decode steps over a cache; None for the model's own forward."""
        captured = None if self.graph_pool is None else self.graph_pool.steps_of(cache, policy)
        return self.fused_model if captured is None else captured

    def overwrites_states(self, cache: RowCache) -> bool:
        """Whether decode steps over a cache keep states in buffers that the next step overwrites."""
        return self.graph_pool is not None and self.graph_pool.steps_of(cache, None) is not None
