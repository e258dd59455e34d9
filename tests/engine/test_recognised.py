"""Decoders without a row in the table: recognised from their structure, proved at load, and held against references."""

import dataclasses
import random

import pytest
import registry_models
import replay
import tiny_models
import transformers
from test_families import Leaves, Pieces, check_routed_halves
from test_full_depth import LIMIT, decode, generate
from tiny_models import without
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.proof import at_load
from dlbench.errors import DlbenchError
from dlbench.methods.static_skip import StaticSkip
from dlbench.models import families
from dlbench.models.backbone import wrap
from dlbench.models.recognition import Unrecognised, recognise

DEPTH = 4
PROMPTS = tiny_models.prompts(4)  # as many rows as heads
LIMITS = [9, 3, 7, 9]
UNSEEN = {"counts_keys", "recognised", "key_values"}
"""What structure cannot tell, and what only recognised families have."""


POLICIES = [(Pieces(), "project"), (Pieces(), "evict"), (Leaves(), "recompute")]
RUNS = ("codegen", "internlm3", "jais2", "nanochat", "vaultgemma")
"""Architectures that nobody prepared, and that must run: some without rotary angles, with biases, or with soft caps."""


@pytest.mark.parametrize("family", tiny_models.RECOGNISED)
def test_a_recognised_family(monkeypatch, family):
    backbone = tiny_models.backbone(family, DEPTH)
    assert backbone.family.recognised
    engine = Engine(backbone)
    assert [g.tokens for g in decode(engine, PROMPTS)] == generate(backbone.model, PROMPTS)
    kept = (1, 2)
    shorter = without(backbone, kept)
    if (types := getattr(backbone.config, "layer_types", None)) is not None:
        shorter.config.layer_types = [types[i] for i in kept]
    wave = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)], StaticSkip(only=kept))
    assert [g.tokens for g in wave.decode(StaticSkip(only=kept))] == generate(shorter, PROMPTS)
    index = tiny_models.RECOGNISED.index(family)
    for turn, (method, kv) in enumerate(POLICIES):
        if family == "mpt" and kv == "evict":
            continue  # the reference cannot hide keys in its masks
        rows = 4 if turn == index % 3 else 2  # one policy with all rows, in turn over the families
        with monkeypatch.context() as patch:
            replay.check(patch, backbone, method, PROMPTS[:rows], LIMITS[:rows], tolerance=1e-4, kv=kv)
    method, kv = POLICIES[index % 3]
    with at_load._eager(backbone.model):
        counted(backbone, method, kv)


def counted(backbone, method, kv):
    """FLOPs executed are those of torch's counter, and FLOPs credited are these at batch 1."""
    engine = Engine(backbone, kernels="stock")
    wave = engine.prefill([Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))])
    with FlopCounterMode(display=False) as counter:
        written = wave.decode(method, kv=kv)
    assert sum(g.executed for g in written) == counter.get_total_flops() > 0
    (alone,) = engine.prefill([Request("a", PROMPTS[0], 6)]).decode()
    assert alone.executed == sum(alone.flops.values())
    assert engine.costs.dense(len(PROMPTS[0]), 6) == alone.executed


@pytest.mark.parametrize("family", tiny_models.EVERY)
def test_every_row_could_be_recognised(family):
    backbone = tiny_models.backbone(family, 5)
    row, seen = (dataclasses.asdict(f) for f in (backbone.family, recognise(backbone.model)))
    seen["inputs"], row["inputs"] = seen["inputs"] or (), () if not seen["inputs"] else row["inputs"]
    seen["head"] = row["head"] = tuple(p for p in row["head"] if families.resolve(backbone.model, p) is not None)
    assert {k: v for k, v in seen.items() if k not in UNSEEN} == {k: v for k, v in row.items() if k not in UNSEEN}


def test_an_architecture_that_nobody_prepared_runs_or_is_refused_with_the_reason():
    prepared = {getattr(transformers, name).model_type for name, _ in tiny_models._RECOGNISED.values()}
    order = [kind for kind in registry_models.KINDS if kind not in {*families.FAMILIES, *prepared, *RUNS}]
    random.Random(20).shuffle(order)
    models = ((kind, registry_models.make(kind)) for kind in order)
    kind, model = next((kind, model) for kind, model in models if model is not None)
    try:
        engine = Engine(wrap(model, name="any"))
    except DlbenchError as error:
        assert f"is of type '{kind}', which dlbench cannot run: " in str(error) and "\n" not in str(error)
    else:
        assert [g.tokens for g in decode(engine, PROMPTS)] == generate(model, PROMPTS)


@pytest.mark.parametrize("kind", RUNS)
def test_architectures_that_nobody_prepared_run(kind):
    model = registry_models.make(kind)
    backbone = wrap(model, name="any")
    assert backbone.family.recognised
    assert [g.tokens for g in decode(Engine(backbone), PROMPTS)] == generate(model, PROMPTS)


@pytest.mark.parametrize("family", ["gptj", "llama4", "olmo3", "stablelm"])
def test_half_layers_in_routed_prompts_are_a_model_without_those_halves(family):
    """Attention and feed-forward in parallel (GPT-J, StableLM), layers without positions, windows, norms after each."""
    check_routed_halves(tiny_models.backbone(family, DEPTH))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 4}, "layer 2 stores no keys and values of its own"),
        ({"hidden_size_per_layer_input": 4}, "layer 0 takes per_layer_input, an input of its own for every token"),
    ],
)
def test_what_cannot_be_exact_is_refused(monkeypatch, change, reason):
    name, options = tiny_models._RECOGNISED["gemma4"]
    changed = (name, {**options, **change, "vocab_size_per_layer_input": tiny_models.VOCABULARY})
    monkeypatch.setitem(tiny_models._RECOGNISED, "gemma4", changed)
    with pytest.raises(DlbenchError, match=f"of type 'gemma4_text', which dlbench cannot run: .*{reason}"):
        wrap(tiny_models.build("gemma4", depth=4))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"logit_divisor": None}, "exits under kv policy recompute differs from the model's own forward by "),
        ({"fill": ("self_attn.k_proj",)}, "the FLOP count is "),
        ({"mlp": ("self_attn",)}, "layers chosen per token under kv policy project "),
    ],
)
def test_a_wrong_family_is_refuted(change, what):
    backbone = wrap(tiny_models.build("granite", depth=4), name="wrong")
    backbone.family = dataclasses.replace(backbone.family, **change)
    with pytest.raises(DlbenchError, match=f"its structure was recognised, but {what}"):
        Engine(backbone)


def test_a_layer_that_looks_at_its_neighbours_is_refuted():
    """Its state depends on other rows, so a text in a batch differs from the same text alone."""
    model = tiny_models.build("gemma", depth=4)
    layer = model.model.layers[2]
    stock = layer.forward
    layer.forward = lambda hidden, *args, **kwargs: stock(hidden + 0.1 * hidden.mean(0), *args, **kwargs)
    with pytest.raises(DlbenchError, match=r"but full depth differs from the model's own forward by 0\.\d+"):
        Engine(wrap(model))


def test_the_proof_is_made_once(monkeypatch):
    backbone = wrap(tiny_models.build("olmo", depth=4))
    Engine(backbone)
    monkeypatch.setattr(at_load, "_checks", None)
    Engine(backbone)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_passes(dtype):
    Engine(tiny_models.backbone("glm4", DEPTH, dtype=dtype))


def test_a_model_without_attention_is_refused():
    with pytest.raises(Unrecognised, match="no list of 4 layers that all have attention"):
        recognise(registry_models.make("mamba"))


def test_a_tensor_without_rows_is_not_taken_for_rows():
    assert tiny_models.backbone("mpt", DEPTH).family.shared == ("position_bias",)
