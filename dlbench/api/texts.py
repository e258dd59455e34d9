"""`dlbench.evaluate`: a method on texts of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlbench.api.given_methods import GivenMethod, class_of
from dlbench.api.given_models import loaded
from dlbench.audit.method_calls import closed_form
from dlbench.data.document import Document
from dlbench.engine import Engine, Generation
from dlbench.errors import DlbenchError
from dlbench.method import Method
from dlbench.models.batch_size import most_slots
from dlbench.prompting.tokenize import Prompted, encode_prompt
from dlbench.registry import kv_policies, plugin_code

if TYPE_CHECKING:
    from dlbench.api.given_models import GivenModel, Tokenizer


@dataclass(frozen=True)
class Continuation:
    """What a method wrote after a prompt, and what that cost.

    Attributes:
        prompt: as it was given.
        text: what was written, without end tokens and from the first stop text on.
        tokens: the new tokens, the end token included.
        layer_share: executed layers ÷ (depth × decode forwards), in [0, 1]; 1 where the first token was the last.
        flop_share: FLOPs of decoding ÷ those of full depth for as many tokens.
        routes: runs of equal decode forwards: one action per layer ("0" skip, "1" attention only, "2" MLP only, "3"
            run, "4" exit), and how many forwards in a row took them.
        truncated: whether the prompt lost its beginning, since it did not fit the model's context.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]
    layer_share: float
    flop_share: float
    routes: tuple[tuple[str, int], ...]
    truncated: bool


def evaluate(
    model: GivenModel,
    method: GivenMethod,
    prompts: Sequence[str],
    *,
    tokenizer: Tokenizer | None = None,
    budget: float | None = None,
    max_new_tokens: int = 128,
    stop: Sequence[str] = (),
    prompt: Literal["full", "routed"] = "full",
    kv: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    kernels: Literal["auto", "stock"] = "auto",
) -> list[Continuation]:
    """Continue texts greedily under a method.

    Args:
        model: a name or folder as `--model` takes it, or a loaded transformers model, which is left as it was.
        method: a name, a plugin file, a class or an instance. What is tuned or fitted on documents is given as the
            instance that came of it: `ResultRow.configured`.
        prompts: texts, as the model reads them: without a chat template unless they have it.
        tokenizer: of a loaded model.
        budget: target share of the layers, in (0, 1], for a method that computes its parameters for it; None takes the
            parameters as they are.
        max_new_tokens: most new tokens of each text.
        stop: texts that end a continuation, and are left out of it.
        prompt: layers that prompts run: "full", all of them, or "routed", the method's.
        kv: policy for the keys and values of skipped tokens; None takes the method's own.
        seed: of the method's random decisions.
        batch_size: texts decoded together; None for 48, on a GPU 256.
        device: of a model that is given by name.
        dtype: likewise; None for float32, on a CUDA GPU the checkpoint's own.
        kernels: "auto" takes fused layers where they equal the model's own, "stock" these.

    Returns:
        One continuation per prompt, in their order.

    Raises:
        DlbenchError: something cannot be done as asked; the message says what to do.
    """
    if isinstance(prompts, str):
        raise DlbenchError("prompts: give a list of texts, not one text")
    if kv is not None:
        kv_policies.check(kv)
    with loaded(model, tokenizer, device, dtype) as backbone:
        chosen = _configured(method, budget, backbone.depth)
        if kv is not None and kv not in chosen.kv:
            raise DlbenchError(f"{type(chosen).__name__} does not support kv = {kv}: it has {', '.join(chosen.kv)}")
        engine = Engine(backbone, kernels=kernels)
        engine.check_generation_config()
        encoded = [
            encode_prompt(backbone, Document(str(n), text, (), max_new_tokens, tuple(stop), n, None))
            for n, text in enumerate(prompts)
        ]
        if not encoded:
            return []
        slots = batch_size or most_slots(backbone.device.type)
        try:
            wave = engine.prefill(
                [one.request for one in encoded],
                chosen if prompt == "routed" else None,
                seed,
                slots=slots,
                reads=() if prompt == "routed" else chosen.reads(backbone.depth),
            )
            generations = wave.decode(chosen, seed=seed, kv=kv)
        except Exception as error:
            if not isinstance(error, DlbenchError) and (failure := plugin_code.blame(chosen, error)) is not None:
                raise failure from error
            raise
        return [_continuation(engine, *pair) for pair in zip(encoded, generations, strict=True)]


def _configured(given: GivenMethod, budget: float | None, depth: int) -> Method:
    """The method that decodes.

    Raises:
        DlbenchError: it needs references, documents to be fitted on, or a budget.
    """
    method = given if isinstance(given, Method) else _made(given)
    name = type(method).__name__
    with plugin_code.blaming(method, "with its parameters"):
        at = method if budget is None else closed_form(method, budget, depth)
        if at is None:
            raise DlbenchError(
                f"method {name} is tuned to a budget on documents: give what dlbench.run tuned "
                "(`configured()` of its row), or an instance with its parameters and no budget"
            )
        try:
            at.validate(depth)
        except ValueError as error:
            raise DlbenchError(f"method {name}: {error}") from error
    return at


def _made(given: GivenMethod) -> Method:
    """A method with the parameters that it has by itself.

    Raises:
        DlbenchError: it is an oracle, is fitted, or has parameters that must be given.
    """
    kind = class_of(given) if isinstance(given, str | Path) else given if isinstance(given, type) else type(given)
    name = kind.__name__
    if not issubclass(kind, Method):
        raise DlbenchError(f"{name} is an oracle, which chooses by references: dlbench.run scores it on tasks")
    try:
        made = kind.from_params({})
    except (ValueError, TypeError) as error:
        raise DlbenchError(f"method {name} has parameters that must be given ({error}): give an instance") from error
    if made.learns:
        raise DlbenchError(
            f"method {name} is fitted on documents: give what dlbench.run fitted (`configured()` of its row)"
        )
    return made


def _continuation(engine: Engine, encoded: Prompted, generation: Generation) -> Continuation:
    backbone, forwards = engine.backbone, generation.layers
    dense = engine.costs.dense(len(encoded.request.ids), len(generation.tokens))
    return Continuation(
        prompt=encoded.document.prompt,
        text=encoded.document.answer(backbone.text(generation.tokens)),
        tokens=tuple(generation.tokens),
        layer_share=sum(forwards) / (backbone.depth * len(forwards)) if forwards else 1.0,
        flop_share=sum(generation.flops.values()) / dense if forwards else 1.0,
        routes=tuple(("".join(map(str, route)), times) for route, times in generation.routes),
        truncated=encoded.truncated,
    )
