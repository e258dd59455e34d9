"""Every family on a device and in a dtype of choice: DLBENCH_TEST_DEVICE=cuda DLBENCH_TEST_DTYPE=bfloat16.

Without these it is float32 on the CPU. Two ways of computing the same may differ where the best two tokens, or a
decision and its threshold, are closer than the dtype's rounding: the engine must then have named that very step.
"""

import os

import pytest
import tiny_models
import torch

from dlbench.engine import Engine, Request
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap

DEVICE = os.environ.get("DLBENCH_TEST_DEVICE", "cpu")
DTYPE = os.environ.get("DLBENCH_TEST_DTYPE", "float32")
LIMIT, DEPTH = 7, 5
PROMPTS = tiny_models.prompts(4)
METHODS = {
    "static": StaticSkip(share=0.6),
    "token": RandomSkip(share=0.5),
    "sequence": RandomSkip(share=0.5, per="sequence"),
}


@pytest.fixture(scope="module", params=tiny_models.EVERY)
def backbone(request):
    if DEVICE != "cpu" and not torch.cuda.is_available():
        pytest.skip(f"no {DEVICE} here")
    model = tiny_models.build(request.param, depth=DEPTH, dtype=getattr(torch, DTYPE))
    return wrap(model.to(DEVICE), name=f"tiny {request.param}")


@pytest.fixture(scope="module", params=["auto", "stock"])
def engine(request, backbone):
    return Engine(backbone, kernels=request.param)


def requests(prompts):
    return [Request(str(index), prompt, LIMIT) for index, prompt in enumerate(prompts)]


def generate(model, prompts):
    """Stock generation, left-padded: new tokens of every row."""
    columns = max(map(len, prompts))
    ids = torch.tensor([[0] * (columns - len(p)) + list(p) for p in prompts], device=DEVICE)
    mask = torch.tensor([[0] * (columns - len(p)) + [1] * len(p) for p in prompts], device=DEVICE)
    out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT, pad_token_id=0)
    return out[:, columns:].tolist()


def first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), None)


def test_full_depth_equals_generate(engine):
    written = engine.prefill(requests(PROMPTS)).decode()
    for generation, expected in zip(written, generate(engine.backbone.model, PROMPTS), strict=True):
        first = first_difference(generation.tokens, expected)
        assert first is None or first in [step for step, _ in generation.near_ties], (generation, expected)
        assert generation.layers == [DEPTH] * (LIMIT - 1)
    assert not engine.kernels_note.startswith("not captured")
    assert (engine.kernels == "captured") == (
        engine.runtime.fused_model is not None and torch.device(DEVICE).type == "cuda"
    )


@pytest.mark.parametrize("name", METHODS)
def test_routing_does_not_depend_on_the_batch(engine, name):
    several = requests(PROMPTS)
    together = engine.prefill(several).decode(METHODS[name])
    alone = [engine.prefill([request]).decode(METHODS[name])[0] for request in several]
    for a, b in zip(together, alone, strict=True):
        # The noise is keyed by document and step: what runs is the same even where the texts have parted.
        assert a.acted and a.layers == b.layers and len(a.layers) == LIMIT - 1
        first = first_difference(a.tokens, b.tokens)
        assert first is None or any(step == first for step, _ in a.near_ties + b.near_ties), (a, b)


def test_a_routed_prompt_does_not_depend_on_the_batch(engine):
    several, method = requests(PROMPTS), METHODS["static"]
    together = engine.prefill(several, method).decode(method)
    alone = [engine.prefill([request], method).decode(method)[0] for request in several]
    for a, b in zip(together, alone, strict=True):
        first = first_difference(a.tokens, b.tokens)
        assert first is None or any(step == first for step, _ in a.near_ties + b.near_ties), (a, b)
