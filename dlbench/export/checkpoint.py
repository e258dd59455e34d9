"""`dlbench export`: write the layers that a static row ran as a checkpoint, and show that it writes the row's texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dlbench import __version__
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.export.pruning import prune
from dlbench.method import Action, Method, Static
from dlbench.models.backbone import Backbone
from dlbench.models.catalog import INT8
from dlbench.models.loading import load
from dlbench.records.schema import Record
from dlbench.system.files import write_text
from dlbench.train.card import CARD_FILE
from dlbench.train.export import save_model


@dataclass(frozen=True)
class Exported:
    """A checkpoint that was written.

    Attributes:
        folder: where.
        layers: numbers of the base's layers that it has.
        sha256: of its files.
        texts: number of texts that were decoded with it and under the row.
        near_ties: how many of them part where two tokens are all but equally likely.
    """

    folder: Path
    layers: tuple[int, ...]
    sha256: str
    texts: int
    near_ties: int


def layers_of(method: Method, depth: int, label: str) -> tuple[int, ...]:
    """The layers of a static method.

    Raises:
        DlbenchError: it is not static, runs halves of layers, or all layers.
    """
    if not isinstance(method, Static):
        raise DlbenchError(
            f"{label} decides while it decodes; only a fixed set of layers is a checkpoint: take a static row"
        )
    actions = method.actions(depth)
    if halves := [i for i, action in enumerate(actions) if action not in (Action.RUN, Action.SKIP)]:
        raise DlbenchError(
            f"{label} runs halves of layers ({', '.join(map(str, halves))}), which no checkpoint of its family can "
            "leave out: take a row that skips whole layers"
        )
    layers = tuple(i for i, action in enumerate(actions) if action == Action.RUN)
    if len(layers) == depth:
        raise DlbenchError(f"{label} runs every layer: that is the model itself")
    return layers


def export(
    record: Record,
    method: Method,
    source: str,
    prompts: Sequence[str],
    folder: Path,
    *,
    max_new_tokens: int = 32,
    data_dir: str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write a checkpoint with the layers of a row, load it again, and compare what both write.

    Args:
        record: of the row.
        method: as it ran.
        source: the model as the run was given it.
        prompts: texts to continue with both; none for no comparison.
        folder: new or empty.
        max_new_tokens: of each text.
        data_dir: folder that prefetched models are looked for in, before the default one.
        note: prints a line for people.

    Raises:
        DlbenchError: the row is no checkpoint, the model is not the row's, or the checkpoint writes other texts.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DlbenchError(f"--to {folder} is not empty: give a new folder")
    info, label = record.backbone, f"{record.method.name} at {record.run.budget or 'no budget'}"
    if info.dtype == INT8:
        raise DlbenchError(f"{info.name} was quantised to int8 for the run: run the row without --dtype int8")
    if record.method.name == "full":
        raise DlbenchError("full runs every layer: that is the model itself")
    layers = layers_of(method, info.layers, label)
    backbone = load(source, dtype=info.dtype, data_dir=data_dir)
    if backbone.sha256 != info.sha256:
        raise DlbenchError(f"model {source} is not the {info.name} that ran (sha256 {info.sha256[:12]}): give --model")
    if record.run.prompt == "full":
        note("the row read prompts with all layers, a checkpoint reads them with its own: compare `--prompt routed`")
    requests = [
        Request(str(n), tuple(backbone.encode(text)[-(backbone.context - max_new_tokens) :]), max_new_tokens)
        for n, text in enumerate(prompts)
    ]
    expected = _written(backbone, method, requests)
    prune(backbone.model, backbone.family, layers)
    save_model(backbone, source, folder, data_dir)
    card = _card(record, layers, backbone.base_sha256)
    write_text(folder / CARD_FILE, json.dumps(card, indent=1) + "\n")
    made = load(str(folder), dtype=info.dtype)
    ties = sum(_same(made, request, *pair) for request, pair in zip(requests, expected, strict=True))
    write_text(folder / "README.md", _readme(record, layers, folder.name, made.sha256))
    return Exported(folder, layers, made.sha256, len(requests), ties)


def _written(
    backbone: Backbone, method: Method, requests: Sequence[Request]
) -> list[tuple[list[int], dict[int, float]]]:
    """What the engine writes under a method, prompts routed."""
    if not requests:
        return []
    generations = Engine(backbone).prefill(requests, method).decode(method)
    return [(one.tokens, dict(one.near_ties)) for one in generations]


def _same(made: Backbone, request: Request, tokens: list[int], ties: dict[int, float]) -> bool:
    """Whether `generate` parts from the tokens of the row at a near tie; False where it writes the same.

    Raises:
        DlbenchError: it writes something else.
    """
    ids = torch.tensor([request.ids])
    with torch.inference_mode():
        whole = made.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.limit, do_sample=False, pad_token_id=0
        )
    new = whole[0, ids.shape[1] :].tolist()
    for index, (one, other) in enumerate(zip(tokens, new, strict=False)):
        if one != other:
            if index in ties:
                return True
            raise DlbenchError(
                f"the checkpoint writes another text than the row from token {index + 1} of prompt {request.id} on: "
                "this family cannot be exported; please report it"
            )
    return False


def _card(record: Record, layers: Sequence[int], base: str) -> dict[str, Any]:
    """What programs read: where the checkpoint comes from."""
    return {
        "schema": 1,
        "base_sha256": base,
        "parent": record.backbone.name,
        "parent_sha256": record.backbone.sha256,
        "layers": list(layers),
        "of": record.backbone.layers,
        "row": record.key,
        "dlbench": __version__,
    }


def _readme(record: Record, layers: Sequence[int], name: str, sha256: str) -> str:
    """What people read."""
    method, info, quality = record.method, record.backbone, record.quality
    setting = ", ".join(f"{key} {value}" for key, value in method.params.items()) or "no parameters"
    lines = [
        f"# {name}",
        "",
        f"{info.name} ({info.family}) with {len(layers)} of its {info.layers} layers, as the method {method.name} "
        f"({setting}) chose them. It is an ordinary checkpoint: transformers and whatever reads its family load it.",
        "",
        f"- Layers of {info.name} that it has: {', '.join(map(str, layers))}",
        f"- sha256 of {info.name}: {info.sha256}",
        f"- sha256 of this checkpoint, over its weights, configuration and tokenizer: {sha256}",
        f"- Row: {record.key}, dlbench {__version__}",
    ]
    if quality is not None and quality.retained is not None:
        interval = "" if quality.retained_ci95 is None else " [{:.3f}, {:.3f}]".format(*quality.retained_ci95)
        prompts = "prompts read by these layers too" if record.run.prompt == "routed" else "prompts read by all layers"
        lines.append(
            f"- Quality on {record.task.name} ({record.task.metric}, {record.task.n} documents, {prompts}): "
            f"{quality.mean:.3f}, {quality.retained:.3f}{interval} of full depth's"
        )
    lines += ["", "## Use", "", f"    dlbench run --model {name} --task {record.task.name} --method full", ""]
    return "\n".join(lines)
