"""The proof of a family that was recognised from structure: made once per model and process, before anything decodes.

A few tokens are decoded through the gates, in rows of different length, and every logit is compared with the model's
own forward over the same text without cache and padding, in which layers are left out by hand. So is shown, in order:
full depth; a fixed set of layers, prompt included; layers and halves of layers chosen per token, under each KV policy;
exits. Then the same is decoded with eager attention, and the FLOPs charged must be those of torch's own counter.
What fails is refused, but for one thing: whether prompts that begin alike may be read from where they part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine.decoding import Decoding
from dlbench.engine.kv.storage import Slots
from dlbench.engine.prefill import Loop, Wave
from dlbench.engine.proof.reference import Actions, Policy, can_silence, logits_of
from dlbench.engine.requests import Generation, Request
from dlbench.engine.runtime import Runtime
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method, Scope, View
from dlbench.models.backbone import Backbone
from dlbench.models.families import unsupported
from dlbench.system.device_memory import ran_out

_LENGTHS = (5, 3)
"""Tokens of each prompt."""
_ALIKE = 2
"""Tokens that all prompts begin with."""
_NEW = 3
"""New tokens of each row; all but the last are forwarded."""
_ALLOWED = {"float64": 1e-6, "float32": 1e-3, "float16": 2e-2}
"""Largest difference of a token's logits, as a share of their spread (root mean squares both); 0.1 for other dtypes."""
_FARTHER = 4.0
"""Where rounding the states before every layer changes more than that: how many times this change is allowed."""
_MOST = 0.5
"""Most that is allowed in any case: other layers or other keys differ by about 1."""
_RUN, _SKIP, _EXIT = int(Action.RUN), int(Action.SKIP), int(Action.EXIT)
_proved: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether prompts of a model may share a prefix."""


class _Refuted(Exception):
    """The engine does not do what the model does; the message says what differs, and by how much."""


@dataclass
class _Planned(Method):
    """Does what it is told: an action per row, decode step and layer."""

    kv: ClassVar[tuple[str, ...]] = ("project", "evict", "recompute")

    actions: Actions
    """[rows, steps, layers]; for a fixed set, the same everywhere."""
    fixed: bool = False
    """Whether they are a fixed set of layers, which prompts run too."""

    @property
    def scope(self) -> Scope:
        return "static" if self.fixed else "token"

    def live(self, depth: int) -> frozenset[int] | None:
        return frozenset(np.flatnonzero(self.actions[0, 0]).tolist()) if self.fixed else None

    def route(self, view: View) -> Action | Tensor:
        if self.fixed:
            return Action(int(self.actions[0, 0, view.layer]))
        codes = self.actions[view.row.cpu().numpy(), view.step.cpu().numpy(), view.layer]
        return torch.from_numpy(codes).to(view.row.device)


def prove(backbone: Backbone) -> bool:
    """Prove that the engine runs a recognised model as the model itself does; nothing for a family of the table.

    Returns:
        Whether prompts may share a prefix.

    Raises:
        DlbenchError: it does not; the message says what differs, and by how much.
    """
    if not backbone.family.recognised:
        return True
    if backbone.model in _proved:
        return _proved[backbone.model]
    try:
        for what, check in _checks(backbone):
            try:
                check()
            except _Refuted as refuted:
                raise _Refuted(f"{what} {refuted}") from refuted
            except Exception as error:
                if ran_out(error):
                    raise
                said = " ".join(str(error).split())[:160]
                raise _Refuted(f"{what} cannot be decoded ({type(error).__name__}: {said})") from error
    except _Refuted as refuted:
        reason = f"its structure was recognised, but {refuted}"
        raise DlbenchError(unsupported(backbone.name, backbone.kind, reason)) from refuted
    shares = _proved[backbone.model] = _shares(backbone)
    return shares


def _shares(backbone: Backbone) -> bool:
    """Whether the model continues prompts correctly after a prefix that was read once for all of them."""
    runtime = Runtime(backbone, metered=True, kernels="auto")
    runtime.sharing = replace(runtime.sharing, least=1, spared=1)
    try:
        _compare(runtime, np.full((len(_LENGTHS), _NEW - 1, backbone.depth), _RUN), "project")
    except Exception as error:
        if ran_out(error):
            raise
        return False
    return True


def _checks(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    """What is shown, in order; each check raises if it fails."""
    depth, shape = backbone.depth, (len(_LENGTHS), _NEW - 1, backbone.depth)
    random = np.random.default_rng(0)
    compare = partial(_compare, Runtime(backbone, metered=True, kernels="auto"))
    full = np.full(shape, _RUN)
    yield "full depth", partial(compare, full, "project")
    few = random.permutation(depth)[: max(1, min(depth - 1, 8))]  # a large model is not itself without many layers
    if depth > 1:
        fixed = np.where(np.isin(np.arange(depth), few[: max(1, depth // 3)]), _SKIP, full)
        yield "a fixed set of layers", partial(compare, fixed, "project", prompt=True)
    parts = (_RUN, _SKIP) + ((int(Action.ATTN), int(Action.MLP)) if can_silence(backbone) else ())
    chosen = np.where(np.isin(np.arange(depth), few), random.choice(parts, shape), full)
    for kv in ("project", "evict"):
        yield f"layers chosen per token under kv policy {kv}", partial(compare, chosen, kv)
    exits = np.where(np.arange(depth) < random.integers(1, depth + 1, shape[:2])[..., None], _RUN, _SKIP)
    yield "exits under kv policy recompute", partial(compare, exits, "recompute")
    yield "the FLOP count", partial(_count, backbone, chosen)


def _requests(backbone: Backbone) -> list[Request]:
    """Prompts of different lengths, of tokens that are unlikely to be special."""
    usable = np.arange(min(backbone.vocabulary, 997))[min(5, backbone.vocabulary // 2) :]
    ids = np.random.default_rng(1).choice(usable, (len(_LENGTHS), max(_LENGTHS)))
    ids[:, :_ALIKE] = ids[0, :_ALIKE]
    return [Request(str(row), tuple(ids[row, :length].tolist()), _NEW) for row, length in enumerate(_LENGTHS)]


@dataclass
class _Decoded:
    """What the engine decoded."""

    generations: list[Generation] = field(default_factory=list)
    logits: dict[int, list[Tensor]] = field(default_factory=dict)
    """Row -> what each of its new tokens was chosen from."""

    def note(self, rows: Slots, logits: Tensor) -> None:
        for row, values in zip(rows.tolist(), logits, strict=True):
            self.logits.setdefault(row, []).append(values.float().cpu())


@torch.inference_mode()
def _decode(runtime: Runtime, actions: Actions, kv: Policy, *, prompt: bool = False) -> _Decoded:
    """Decode a few tokens of a few prompts under planned actions.

    Args:
        runtime: the model.
        actions: [rows, steps, layers]; a token leaves at its first skipped layer where `kv` is recompute.
        kv: KV policy.
        prompt: whether the prompts run the same layers.
    """
    decoded = _Decoded()

    def pick(wave: Wave, method: Method | None, seed: int, sample: int | None, kv: str | None) -> Loop:
        loop = Decoding(wave, method, seed, sample, kv)
        loop.eos, loop.on_logits = frozenset(), decoded.note
        return loop

    told = np.where(actions == _SKIP, _EXIT, actions) if kv == "recompute" else actions
    method = _Planned(told, prompt)
    requests = _requests(runtime.backbone)
    wave = Wave(runtime, tuple(requests), (method, 0) if prompt else None, len(requests), frozenset(), pick)
    decoded.generations = wave.decode(method, kv=kv)
    return decoded


def _compare(runtime: Runtime, actions: Actions, kv: Policy, *, prompt: bool = False) -> None:
    """Compare what the engine decodes with the reference; see `_decode`.

    Raises:
        _Refuted: some token's logits differ.
    """
    decoded, backbone = _decode(runtime, actions, kv, prompt=prompt), runtime.backbone
    least = _ALLOWED.get(backbone.precision, 0.1)
    for row, request in enumerate(_requests(backbone)):
        tokens = decoded.generations[row].tokens
        before = np.repeat(actions[row, :1] if prompt else np.full_like(actions[row, :1], _RUN), len(request.ids), 0)
        text, plan = [*request.ids, *tokens[:-1]], np.concatenate((before, actions[row]))
        reference = partial(logits_of, backbone, text, plan, kv)
        expected = reference()[len(request.ids) - 1 :].float().cpu()
        gap, allowed = _gap(torch.stack(decoded.logits[row]), expected), least
        if gap > least:  # models are more sensitive to rounding without some of their layers
            rounded = _gap(reference(jitter=True)[len(request.ids) - 1 :].float().cpu(), expected)
            allowed = min(_MOST, max(least, _FARTHER * rounded))
        if not gap <= allowed:
            raise _Refuted(
                f"differs from the model's own forward by {gap:.2g} of the spread of the logits, and {allowed:.2g} is "
                f"allowed in {backbone.precision}"
            )


def _gap(got: Tensor, expected: Tensor) -> float:
    """The largest difference of a token's logits, as a share of their spread."""
    spread = (expected - expected.mean(-1, keepdim=True)).pow(2).mean(-1).sqrt()
    return float(((got - expected).pow(2).mean(-1).sqrt() / spread).max())


def _count(backbone: Backbone, actions: Actions) -> None:
    """Compare the FLOPs charged, prompts included, with those of torch's counter.

    Raises:
        _Refuted: they differ.
    """
    with _eager(backbone.model), FlopCounterMode(display=False) as counter:
        decoded = _decode(Runtime(backbone, metered=True, kernels="stock"), actions, "project")
    charged, counted = sum(g.prompt_executed + g.executed for g in decoded.generations), counter.get_total_flops()
    if charged != counted:
        raise _Refuted(f"is {charged}, and torch counts {counted}")


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Let attention and experts run in products that torch's counter knows."""
    configs = {id(config): config for m in model.modules() if (config := getattr(m, "config", None)) is not None}
    names = ("_attn_implementation", "_experts_implementation")
    before = [(config, name, getattr(config, name, None)) for config in configs.values() for name in names]
    try:
        for config, name, value in before:
            if value is not None:
                setattr(config, name, "eager")
        yield
    finally:
        for config, name, value in before:
            if value is not None:
                setattr(config, name, value)
