"""Token ids of documents: prompts cut to what fits, answers with their contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlbench.data.document import Document
from dlbench.engine import Engine, Request
from dlbench.engine.requests import Question
from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone


@dataclass(frozen=True)
class Encoded:
    """Contexts and answers of a document as token ids."""

    question: Question
    truncated: bool
    """Whether a context lost its beginning."""

    @property
    def longest(self) -> tuple[int, ...]:
        """Tokens of the longest context and answer but for the last, which is never read; memory must hold them."""
        return max(((*context, *answer)[:-1] for context, answer in self.question.answers), key=len)


@dataclass(frozen=True)
class Prompted:
    """A document with its prompt as token ids."""

    document: Document
    request: Request
    truncated: bool
    """Whether the prompt was cut, to the model's context or to the task's limit."""
    overflowed: bool = False
    """Whether it was cut to the model's context."""
    with_bos: bool = False
    """Whether the prompt begins with a begin-of-text token."""
    encoded: Encoded | None = None
    """Token ids of the answers, for documents that are scored by loglikelihood."""


def tokenise(engine: Engine, documents: Sequence[Document]) -> list[Prompted]:
    """Tokenise documents. A prompt that is too long loses its beginning, or the end of its body.

    Raises:
        DlbenchError: the tokenizer adds a second begin-of-text token, the context has no room for the new tokens, or
            the model has no embedding for a token.
    """
    return [_answers(engine.backbone, d) if d.pairs else encode_prompt(engine.backbone, d) for d in documents]


def encode_prompt(backbone: Backbone, document: Document) -> Prompted:
    """Tokenise the prompt of a document that the model continues.

    Raises:
        DlbenchError: as `tokenise`.
    """
    ids = backbone.encode(document.prompt)
    if not ids:
        raise DlbenchError(
            f"{document.named}: its prompt {document.prompt[:40]!r} has no token for model {backbone.name!r}: give it "
            "a text, or take the document out"
        )
    _check_bos(backbone, document.named, ids)
    room = backbone.context - document.limit
    if room < 1:
        raise DlbenchError(
            f"model {backbone.name!r} has a context of {backbone.context} tokens; task limit {document.limit} "
            "leaves no room for a prompt"
        )
    wanted = min(len(ids), document.prompt_tokens or len(ids))
    most = min(wanted, room)
    truncated = len(ids) > most
    if truncated and document.body is not None:
        ids = _cut_body(backbone, document.prompt, document.body, most)
    if len(ids) > most:
        ids = backbone.shorten(ids, most)
    backbone.check_ids(ids, f"{document.named}: the prompt")
    request = Request(document.id, tuple(ids), document.limit, document.stop, document.thinking)
    return Prompted(document, request, truncated, wanted > room, backbone.begins(ids))


def limited_prompt(backbone: Backbone, document: Document, ids: list[int]) -> list[int]:
    """Cut the prompt of a fit document to the task's limit; documents beyond the context are dropped later.

    Args:
        backbone: has the tokenizer.
        document: has the prompt.
        ids: the prompt's token ids, uncut.
    """
    limited = document.prompt_tokens is not None and len(ids) > document.prompt_tokens
    return list(encode_prompt(backbone, document).request.ids) if limited else ids


def encode(backbone: Backbone, document: Document) -> Encoded:
    """Tokenise contexts and answers, with the boundary between them where lm-eval has it.

    White space at the end of a context goes to the answer, and an empty context becomes the token that begins a text. A
    context that does not fit the model's loses its beginning.

    Raises:
        DlbenchError: an answer has no token, or does not fit the model's context, or the model has no embedding for a
            token.
    """
    pairs, truncated = [], False
    for context, continuation in document.pairs:
        stripped, text = context.rstrip(), context + continuation
        before = backbone.encode(stripped) if stripped else backbone.start
        answer = backbone.encode(text)[len(before) :] if stripped else backbone.plain(text)
        limit = backbone.context
        if not answer or len(answer) > limit:
            what = "is empty" if not answer else f"does not fit a context of {limit} tokens"
            raise DlbenchError(f"{document.named}: the answer {continuation!r} {what}")
        # The last token of an answer is only predicted, never read.
        if len(before) + len(answer) - 1 > limit:
            before, truncated = backbone.shorten(before, limit - len(answer) + 1), True
        backbone.check_ids([*before, *answer], f"{document.named}: an answer with its context")
        pairs.append((tuple(before), tuple(answer)))
    return Encoded(Question(document.id, tuple(pairs)), truncated)


def _cut_body(backbone: Backbone, prompt: str, body: tuple[int, int], most: int) -> list[int]:
    """Token ids of a prompt with as much of its body as fits; the rest of the prompt stays."""
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


def _answers(backbone: Backbone, document: Document) -> Prompted:
    encoded = encode(backbone, document)
    for context, _ in encoded.question.answers:
        _check_bos(backbone, document.named, context)
    with_bos = all(backbone.begins(context) for context, _ in encoded.question.answers)
    request = Request(document.id, encoded.longest, document.limit, document.stop)
    return Prompted(document, request, encoded.truncated, encoded.truncated, with_bos, encoded)


def _check_bos(backbone: Backbone, named: str, ids: Sequence[int]) -> None:
    if backbone.begins(ids) and backbone.begins(ids[1:]):
        raise DlbenchError(f"{named}: the prompt begins with two begin-of-text tokens; give it one")
