import copy
import inspect
import itertools

import pytest
import tiny_models
import torch
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from dlbench.engine import Engine, Request
from dlbench.engine.kernels.equivalence import TOLERANCE, ProbeCache
from dlbench.engine.kernels.fuse import NotFused, fuse
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kv.row_cache import KVStored
from dlbench.method import Action
from dlbench.models.backbone import wrap
from dlbench.models.families import resolve

REASONS = {
    "gemma2": "no fused layers for models of type gemma2",
    "opt-postnorm": "no fused layers for opt without do_layer_norm_before",
    "gpt_neo": "no fused layers for models of type gpt_neo",
    **dict.fromkeys(("falcon-7b", "falcon-40b", "falcon-alibi"), "no fused layers for models of type falcon"),
    "bloom": "no fused layers for models of type bloom",
}
FUSED = tuple(family for family in tiny_models.EVERY if family not in REASONS)
DTYPES = (torch.float32, torch.bfloat16)
PROMPT = [[5, 9, 17, 3, 40, 22, 31], [0, 0, 0, 8, 11, 50, 12], [0, 21, 6, 33, 2, 7, 60]]


class Recorder:
    """Runs a model's prompt and one step, and keeps what went into and came out of each layer in the step.

    A step of several tokens is verification's; one of no prompt before it is the prompt itself.
    """

    def __init__(self, backbone, *, padded, rows=3, tokens=1):
        self.backbone, self.calls, self.tokens = backbone, [], tokens
        ids = torch.tensor(PROMPT[:rows])
        mask = (ids != 0).long() if padded else torch.ones_like(ids)
        cache = DynamicCache(config=backbone.model.config)
        with torch.inference_mode():
            if tokens < ids.shape[1]:
                backbone.model(ids, attention_mask=mask, past_key_values=cache)
                ids = ids[:, -tokens:] % 7 + 3
                mask = torch.cat((mask, mask[:, -tokens:]), 1)
            for layer in backbone.layers:
                layer.forward = self._around(layer.forward)
            backbone.model(ids, attention_mask=mask, past_key_values=cache)
            for layer in backbone.layers:
                del layer.forward

    def _around(self, forward):
        names = list(inspect.signature(forward).parameters)[1:]

        def record(hidden, *args, **kwargs):
            kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
            name = next(k for k, v in kwargs.items() if isinstance(v, DynamicCache))
            before = copy.deepcopy(kwargs[name])
            out = forward(hidden, **kwargs)
            after = kwargs[name].layers[len(self.calls)]
            self.calls.append((hidden, {**kwargs, name: before}, name, out, (after.keys, after.values)))
            return out

        return record

    def __iter__(self):
        """Input, arguments, their cache's name, output, and the K and V after it, of each layer; a cache is fresh."""
        for hidden, kwargs, name, out, after in self.calls:
            written = [x[:, :, -self.tokens :] for x in after]
            yield hidden, {**kwargs, name: copy.deepcopy(kwargs[name])}, name, out, written


def close(got, expected, origin=0.0):
    """Within the tolerance of what was added to `origin`, by row."""
    assert got.shape == expected.shape and got.dtype == expected.dtype
    over = tuple(range(1, got.ndim))
    allowed = TOLERANCE[got.dtype] * (expected - origin).abs().amax(over)
    rounding = 4 * torch.finfo(got.dtype).eps * expected.abs().amax(over)
    assert ((got - expected).abs().amax(over) <= allowed + rounding).all()


@torch.inference_mode(False)
def build(family="llama", **options):
    return wrap(tiny_models.build(family, **options), name=f"tiny-{family}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FUSED)
@torch.inference_mode()
def test_a_fused_step_equals_the_stock_layer(family, dtype):
    backbone = build(family, dtype=dtype)
    for padded, rows, tokens in itertools.product((True, False), (3, 1), (1, 3, len(PROMPT[0]))):
        recorded = Recorder(backbone, padded=padded, rows=rows, tokens=tokens)
        fused = fuse(backbone)
        assert len(fused) == backbone.depth
        for index, (step, (hidden, kwargs, name, out, written)) in enumerate(zip(fused, recorded, strict=True)):
            got, mask = step(hidden, **kwargs), kwargs["attention_mask"]
            layer, seen = kwargs[name].layers[index], slice(None)
            if mask is not None and rows > 1 and tokens == len(PROMPT[0]):  # what a pad makes is nobody's
                seen = torch.tensor(PROMPT) != 0
            assert hidden.shape[1] == tokens
            close(got[seen], out[seen], hidden[seen])
            close(layer.keys[:, :, -tokens:], written[0])
            close(layer.values[:, :, -tokens:], written[1])


def _nothing(width, attention):
    def forward(*args, **kwargs):
        x = args[0] if args else kwargs["hidden_states"]
        zeros = x.new_zeros(*x.shape[:-1], width)
        return (zeros, None) if attention else zeros

    return forward


@pytest.mark.parametrize("family", FUSED)
@torch.inference_mode()
def test_halves_equal_a_layer_whose_other_half_gives_nothing(family):
    backbone = build(family)
    recorded = Recorder(backbone, padded=True)
    halves = (Action.ATTN, backbone.family.mlp[-1]), (Action.MLP, backbone.family.attention)
    for layer, step, (hidden, kwargs, name, _, _) in zip(backbone.layers, fuse(backbone), recorded, strict=True):
        for part, other in halves:
            fresh, again = ({**kwargs, name: copy.deepcopy(kwargs[name])} for _ in range(2))
            silenced = resolve(layer, other)
            silenced.forward = _nothing(backbone.width, attention=part is Action.MLP)
            expected = layer.forward(hidden, **fresh)
            del silenced.forward
            close(step(hidden, part=part, **again), expected, hidden)


class Filling:
    """A cache in a fill: it stores and ends the layer."""

    def update(self, keys, values, layer):
        self.written, self.layer = (keys, values), layer
        raise KVStored


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", FUSED)
@torch.inference_mode()
def test_a_fill_writes_the_stock_keys_and_values(family, dtype):
    backbone = build(family, dtype=dtype)
    for index, (step, call) in enumerate(zip(fuse(backbone), Recorder(backbone, padded=True), strict=True)):
        hidden, kwargs, name, _, written = call
        cache = Filling()
        with pytest.raises(KVStored):
            step.fill(hidden, **{**kwargs, name: cache, "attention_mask": None})
        assert cache.layer == index
        for got, expected in zip(cache.written, written, strict=True):
            close(got, expected)


@torch.inference_mode()
def test_a_mask_may_be_of_numbers():
    backbone = build()
    for step, (hidden, kwargs, _, out, _) in zip(fuse(backbone), Recorder(backbone, padded=True), strict=True):
        mask = torch.zeros(kwargs["attention_mask"].shape).masked_fill_(~kwargs["attention_mask"], -torch.inf)
        close(step(hidden, **{**kwargs, "attention_mask": mask}), out, hidden)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@torch.inference_mode()
def test_heads_that_share_keys_may_be_queries_of_one(family):
    backbone = build(family)
    assert backbone.model.config.num_key_value_heads < backbone.model.config.num_attention_heads
    for step, (hidden, kwargs, _, out, _) in zip(fuse(backbone), Recorder(backbone, padded=True), strict=True):
        step.folds = True  # as on a GPU
        close(step(hidden, **kwargs), out, hidden)


@torch.inference_mode()
def test_strided_keys_and_values_are_attended_to():
    step, width = fuse(build())[0], 8
    hidden, angles = torch.randn(2, 1, 32), (torch.randn(2, 1, width), torch.randn(2, 1, width))
    room = torch.randn(2, 4, 2, 20, width)
    dense = ProbeCache(*(x[:2, :, 3:9].clone() for x in room))
    strided = ProbeCache(*(x[:2, :, 3:9] for x in room))
    arguments = {"attention_mask": None, "position_embeddings": angles}
    a, b = (step(hidden, past_key_values=past, **arguments) for past in (dense, strided))
    assert torch.equal(a, b)


@pytest.mark.parametrize(("family", "reason"), REASONS.items())
def test_the_other_families_say_why(family, reason):
    with pytest.raises(NotFused, match=f"^{reason}$"):
        fuse(build(family))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def _subclass(layer):
    layer.mlp.down_proj.__class__ = Doubled


def _share(layer):
    layer.self_attn.k_proj.weight = layer.self_attn.v_proj.weight


def _replace_forward(layer):
    layer.mlp.forward = layer.mlp.forward


def _mix_dtypes(layer):
    layer.mlp.bfloat16()


def _drop_bias(layer):
    layer.self_attn.q_proj.bias = None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_subclass, "mlp.down_proj is a Doubled, not a plain linear map"),
        (_share, "self_attn.k_proj shares its weights"),
        (_replace_forward, "the forward of mlp is replaced"),
        (_mix_dtypes, "weights of several dtypes"),
        (_drop_bias, "of self_attn.q_proj, self_attn.k_proj, self_attn.v_proj some have a bias"),
        (lambda layer: layer.double(), "self_attn.q_proj has no plain floating-point weights"),
        (lambda layer: layer.mlp.register_forward_hook(lambda *_: None), "mlp has hooks"),
        (lambda layer: layer.train(), "the model is in training mode"),
        (lambda layer: delattr(layer, "mlp"), ".* no attribute 'mlp'"),
    ],
    ids=lambda x: getattr(x, "__name__", None),
)
def test_an_unusual_layer_says_why(change, reason):
    backbone = build()
    change(backbone.layers[3])
    with pytest.raises(NotFused, match=f"^layer 3: {reason}$"):
        fuse(backbone)


def test_another_attention_says_why():
    with pytest.raises(NotFused, match=r"^attention is eager, not sdpa$"):
        fuse(build(attention="eager"))


def _patched(cls, change):
    stock = cls.forward
    return cls, lambda self, x: change(self, stock, x)


@pytest.mark.parametrize(
    ("cls", "forward"),
    [
        _patched(SiLUActivation, lambda self, stock, x: torch.relu(x)),
        _patched(LlamaMLP, lambda self, stock, x: stock(self, x) * 1.001),
        _patched(LlamaRMSNorm, lambda self, stock, x: stock(self, x + 1e-3)),
        _patched(nn.Linear, lambda self, stock, x: stock(self, x) * float("nan")),
    ],
    ids=["activation", "scale", "norm", "nan"],
)
def test_a_layer_that_computes_something_else_is_caught(cls, forward, monkeypatch):
    backbone = build()
    monkeypatch.setattr(cls, "forward", forward)
    with pytest.raises(NotFused, match=r"^layer 0: .* times as far from the exact result as is allowed$"):
        fuse(backbone)


def test_a_layer_that_differs_over_several_tokens_only_is_caught(monkeypatch):
    stock = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: stock(self, x) * (1 if x.shape[1] == 1 else 1.001))
    with pytest.raises(
        NotFused,
        match=r"^layer 0: the output of several tokens is .* times as far from the exact result as is allowed$",
    ):
        fuse(build())


def test_the_layer_that_differs_is_named():
    backbone = build()
    backbone.layers[4].mlp.__class__ = type(
        "Other", (LlamaMLP,), {"forward": lambda self, x: -LlamaMLP.forward(self, x)}
    )
    with pytest.raises(NotFused, match=r"^layer 4: "):
        fuse(backbone)


def test_a_failing_layer_gives_one_line():
    backbone = build()

    def fail(self, x):
        raise ValueError("no\nway")

    backbone.layers[1].mlp.__class__ = type("Failing", (LlamaMLP,), {"forward": fail})
    with pytest.raises(NotFused, match=r"^layer 1: ValueError: no$"):
        fuse(backbone)


def test_prompts_run_through_fused_layers(monkeypatch):
    engine = Engine(build())
    monkeypatch.setattr(LlamaMLP, "forward", None)
    [found] = engine.prefill([Request("a", (5, 9, 17), 4)]).decode()
    monkeypatch.undo()
    [expected] = Engine(build(), kernels="stock").prefill([Request("a", (5, 9, 17), 4)]).decode()
    assert found.tokens == expected.tokens


def _storages(model):
    found = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    return sum(found.values())


@pytest.mark.parametrize("family", FUSED)
def test_parameters_stay_what_they_are(family):
    backbone = build(family)
    model, ids = backbone.model, torch.tensor(PROMPT)
    parameters, state, size = dict(model.named_parameters()), copy.deepcopy(model.state_dict()), _storages(model)
    with torch.inference_mode():
        before = model(ids).logits
    places = None
    for _ in range(2):
        fuse(backbone)
        assert all(p is parameters[name] for name, p in model.named_parameters())
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
        assert _storages(model) == size
        assert places in (None, [p.data_ptr() for p in model.parameters()])
        places = [p.data_ptr() for p in model.parameters()]
        assert not any(p.is_inference() for p in model.parameters())
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, before)


@torch.inference_mode()
def test_a_model_made_in_inference_mode_is_fused_too():
    backbone = wrap(tiny_models.build("llama"), name="tiny-llama")
    state = copy.deepcopy(backbone.model.state_dict())
    fuse(backbone)
    assert all(torch.equal(x, state[name]) for name, x in backbone.model.state_dict().items())


def test_a_fused_model_can_be_saved_and_copied(tmp_path):
    backbone = build()
    state = copy.deepcopy(backbone.model.state_dict())
    fuse(backbone)
    backbone.model.save_pretrained(tmp_path)
    for model in (AutoModelForCausalLM.from_pretrained(tmp_path), copy.deepcopy(backbone.model)):
        assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize(("family", "kinds"), [("llama", 1), ("gemma3", 2)])
def test_mask_and_angles_of_a_prompt_are_made_once_per_kind_of_layer(family, kinds, monkeypatch):
    backbone, seen = build(family), []
    engine = Engine(backbone)
    forward = FusedLayer._attend
    monkeypatch.setattr(FusedLayer, "_attend", lambda *args: seen.append(args[2]) or forward(*args))
    engine.prefill([Request(str(i), ids, 9, ()) for i, ids in enumerate(tiny_models.prompts(3))])
    assert len(seen) == backbone.depth
    assert all(x["signed"] and x["attention_mask"].dtype is torch.float32 for x in seen)
    for name in ("attention_mask", "position_embeddings"):
        assert len({id(x[name]) for x in seen}) == kinds
