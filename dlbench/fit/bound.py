"""The bound of a fit in tokens: which documents of a part it takes."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.data.document import Document
from dlbench.engine.keyed_rng import key_of
from dlbench.models.backbone import Backbone
from dlbench.prompting.teacher_forcing import example


def bounded(backbone: Backbone, documents: Sequence[Document], tokens: int | None) -> list[Document]:
    """Take documents in the order of their ids' hashes while they fit a number of tokens; at least one.

    So a larger bound takes what a smaller one takes, and more. A document counts with its prompt and its first
    reference, as the model reads them.

    Args:
        backbone: its tokenizer and context.
        documents: a part of the fit split.
        tokens: the bound; None takes all.

    Returns:
        The documents that are taken, in the order in which they were given.
    """
    if tokens is None:
        return list(documents)
    taken: set[str] = set()
    for document in sorted(documents, key=lambda d: key_of(d.id)):
        prompt, target = example(backbone, document, 0)
        tokens -= len(prompt) + len(target)
        if tokens < 0 and taken:
            break
        taken.add(document.id)
    return [d for d in documents if d.id in taken]
