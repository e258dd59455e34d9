"""FLOPs by sizes and routes alone are those that the engine counts: windows, recurrent layers, experts, exits."""

from dataclasses import dataclass

import pytest
import tiny_models
from torch import Tensor

from dlbench.engine import Engine, Request
from dlbench.method import Action, Method, View
from dlbench.submission.packing import layer_costs

FAMILIES = (
    *("llama", "gemma2", "mistral-window", "opt-projected", "gpt_neox", "lfm2", "falcon_h1", "qwen3_next"),
    *("mixtral", "deepseek_v3"),
)


@dataclass
class Uneven(Method):
    """Layers, halves and exits by turns."""

    def route(self, view: View) -> Action | Tensor:
        return ((view.step * 7 + view.layer * 3) % 5).clamp(max=3) if view.layer else Action.RUN


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_of_routes_are_those_of_the_engine(family):
    engine = Engine(tiny_models.backbone(family))
    costs = layer_costs(engine.costs)
    prompts = tiny_models.prompts(4)
    wave = engine.prefill([Request(str(i), p, 12) for i, p in enumerate(prompts)])
    for method in (None, Uneven()):
        for prompt, generation in zip(prompts, wave.decode(method), strict=True):
            routes = [("".join(map(str, route)), times) for route, times in generation.routes]
            routed = costs.route_cost(routes, len(prompt))
            assert routed.layers == generation.flops["layers"]
            assert routed.attention == generation.flops["attention"]
            assert routed.depths.tolist() == pytest.approx(generation.layers)
            assert generation.flops["kv"] <= routed.fills
            assert costs.prompt(len(prompt)) == generation.prompt_flops
            assert generation.flops["heads"] == costs.heads(len(generation.layers))
    assert costs.dense(30, 12) == engine.costs.dense(30, 12)
