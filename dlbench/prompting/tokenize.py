"""Documents as token ids: cut where they are too long, begun once, and put together into waves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlbench.data.task import Document
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.evaluation.multiple_choice import Encoded, encode
from dlbench.models.backbone import Backbone


@dataclass(frozen=True)
class Prompted:
    """A document with its prompt as token ids."""

    document: Document
    request: Request
    truncated: bool
    """Whether the prompt was cut: to the model's context, or to the limit that the task sets."""
    overflowed: bool = False
    """Whether it was cut to the model's context."""
    with_bos: bool = False
    """Whether the prompt begins with a begin-of-text token."""
    encoded: Encoded | None = None
    """The answers of a document that has some to weigh."""


def tokenise(engine: Engine, documents: Sequence[Document]) -> list[Prompted]:
    """Prompts as token ids. One that is too long loses its beginning, or the end of its body, and is marked.

    Raises:
        DlbenchError: the model's tokenizer begins a text twice, the context cannot hold the new tokens, or the model
            has no embedding for a token.
    """
    return [_weighed(engine.backbone, d) if d.pairs else encode_prompt(engine.backbone, d) for d in documents]


def encode_prompt(backbone: Backbone, document: Document) -> Prompted:
    """The prompt of a document that is to be continued.

    Raises:
        DlbenchError: as `tokenise`.
    """
    ids = backbone.encode(document.prompt)
    if not ids:
        raise DlbenchError(
            f"{document.named}: its prompt {document.prompt[:40]!r} has no token for model {backbone.name!r}: give it "
            "a text, or take the document out"
        )
    _begins_once(backbone, document.named, ids)
    room = backbone.context - document.limit
    if room < 1:
        raise DlbenchError(
            f"model {backbone.name!r} has a context of {backbone.context} tokens; task limit {document.limit} "
            "leaves no room for a prompt"
        )
    wanted = min(len(ids), document.prompt_tokens or len(ids))
    most = min(wanted, room)
    cut = len(ids) > most
    if cut and document.body is not None:
        ids = _without_end(backbone, document.prompt, document.body, most)
    if len(ids) > most:
        ids = backbone.shorten(ids, most)
    backbone.check_ids(ids, f"{document.named}: the prompt")
    request = Request(document.id, tuple(ids), document.limit, document.stop, document.thinking)
    return Prompted(document, request, cut, wanted > room, backbone.begins(ids))


def limited_prompt(backbone: Backbone, document: Document, ids: list[int]) -> list[int]:
    """The prompt of a document that is fitted on, cut to the task's limit; what exceeds the context is dropped later.

    Args:
        backbone: has the tokenizer.
        document: has the prompt.
        ids: its token ids, uncut.
    """
    limited = document.prompt_tokens is not None and len(ids) > document.prompt_tokens
    return list(encode_prompt(backbone, document).request.ids) if limited else ids


def _without_end(backbone: Backbone, prompt: str, body: tuple[int, int], most: int) -> list[int]:
    """Token ids of a prompt with as much of its body as fits; all else stays."""
    start, end = body
    low, high = 0, end - start
    best = backbone.encode(prompt[:start] + prompt[end:])
    while low < high:
        middle = (low + high + 1) // 2
        ids = backbone.encode(prompt[: start + middle].rstrip() + prompt[end:])
        if len(ids) <= most:
            low, best = middle, ids
        else:
            high = middle - 1
    return best


def _weighed(backbone: Backbone, document: Document) -> Prompted:
    encoded = encode(backbone, document)
    for context, _ in encoded.question.answers:
        _begins_once(backbone, document.named, context)
    with_bos = all(backbone.begins(context) for context, _ in encoded.question.answers)
    request = Request(document.id, encoded.longest, document.limit, document.stop)
    return Prompted(document, request, encoded.truncated, encoded.truncated, with_bos, encoded)


def _begins_once(backbone: Backbone, named: str, ids: Sequence[int]) -> None:
    if backbone.begins(ids) and backbone.begins(ids[1:]):
        raise DlbenchError(f"{named}: the prompt begins with two begin-of-text tokens; give it one")


def waves(prompted: Sequence[Prompted], size: int, processes: int = 1) -> list[list[Prompted]]:
    """Batches of prompts of similar length: little padding.

    Args:
        prompted: in any order.
        size: most prompts of a batch.
        processes: how many take turns; the batches of a round are alike, so that none waits for the others.
    """
    ordered = sorted(prompted, key=lambda p: (len(p.request.ids), p.document.index))
    rounds = (ordered[i : i + size * processes] for i in range(0, len(ordered), size * processes))
    dealt = (several[i::processes] for several in rounds for i in range(processes))
    return [batch for batch in dealt if batch]
