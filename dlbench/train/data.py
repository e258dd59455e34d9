"""What is learnt from: fresh documents where the task draws them, else the learn part of its fit split.

Everything is made before the first step, from the seed alone: a training that is taken up again sees the same texts in
the same order. Documents that ask what a test document asks, or one that quality is measured on, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any

from dlbench.data.document import documents_sha256
from dlbench.data.task import Document, Task
from dlbench.errors import DlbenchError
from dlbench.fit import halves
from dlbench.models.backbone import Backbone
from dlbench.prompting.teacher_forcing import Example, example
from dlbench.train.card import Source

DRAWN = 10_000
"""Documents drawn per task, unless told otherwise."""


@dataclass(frozen=True)
class Corpus:
    """The texts of a training."""

    passes: tuple[list[Example], ...]
    """One list per epoch; each epoch takes the next reference of a document."""
    sources: tuple[Source, ...]


def tuned_on(task: Task) -> list[Document]:
    """The documents that quality may be measured on: the tune part of the fit split.

    Raises:
        DlbenchError: the task has no fit split.
    """
    try:
        return halves(task.documents("fit"))[1]
    except DlbenchError as error:
        raise DlbenchError(f"task {task.name!r} has no split to train on: give its YAML a training_split") from error


def gather(
    backbone: Backbone,
    tasks: Sequence[Task],
    documents: int | None,
    epochs: int | None,
    seed: int,
    say: Callable[[int, int], None] = lambda done, of: None,
) -> Corpus:
    """Make the texts of a training.

    Args:
        backbone: whose tokens they become.
        tasks: mixed in equal numbers of documents.
        documents: in all; None for DRAWN per task that draws, and all there are of others.
        epochs: None for one where all tasks draw, two otherwise.
        seed: of what is drawn.
        say: progress: (texts made, texts in all).

    Raises:
        DlbenchError: a task has nothing to learn from, or fewer documents than asked for.
    """
    share = None if documents is None else max(1, documents // len(tasks))
    found = [_documents(task, share, seed) for task in tasks]
    epochs = epochs or (1 if all(task.generator for task in tasks) else 2)
    total = sum(len(kept) for kept, _ in found) * epochs
    passes: tuple[list[Example], ...] = tuple([] for _ in range(epochs))
    sources, done = [], 0
    for task, (kept, left_out) in zip(tasks, found, strict=True):
        tokens = targets = 0
        for document in kept:
            made: dict[int, Example] = {}
            for epoch, texts in enumerate(passes):
                reference = epoch % len(document.references)
                if reference not in made:
                    made[reference] = example(backbone, document, reference)
                if made[reference].target:
                    texts.append(made[reference])
                    tokens += len(made[reference].prompt) + len(made[reference].target)
                    targets += len(made[reference].target)
            done += epochs
            if done % 1000 < epochs:
                say(done, total)
        sources.append(
            Source(
                task=task.name,
                version=task.version,
                split="train" if task.generator else "fit",
                generator=task.generator,
                sha256=documents_sha256(kept),
                documents=len(kept),
                left_out=left_out,
                epochs=epochs,
                tokens=tokens,
                targets=targets,
            )
        )
    if not all(passes):
        raise DlbenchError("there is nothing to learn from: no prompt leaves room for a reference in the context")
    return Corpus(passes, tuple(sources))


def _documents(task: Task, count: int | None, seed: int) -> tuple[list[Document], int]:
    """Documents to learn from, and how many were left out because they are tested or measured on."""
    kept_apart = {d.prompt for d in (*task.documents("test"), *tuned_on(task))}
    before = 0 if task.generator else task.fit_overlap
    if task.generator:
        found = _draw(task, count or DRAWN, seed)
    else:
        found = [d for d in halves(task.documents("fit"))[0] if d.references]
        if count is not None:
            if count > len(found):
                raise DlbenchError(
                    f"task {task.name!r} has {len(found)} documents to learn from, not {count}: give fewer --documents "
                    "(they are shared evenly by the tasks), or more --epochs"
                )
            found = Random(f"{seed}/{task.name}").sample(found, count)
    kept = [d for d in found if d.prompt not in kept_apart]
    if not kept:
        raise DlbenchError(f"task {task.name!r} has no documents to learn from")
    return kept, len(found) - len(kept) + before


def _draw(task: Task, count: int, seed: int) -> list[Document]:
    assert task.generator is not None
    module, _, name = task.generator.rpartition(".")
    try:
        drawn: list[Any] = getattr(import_module(module), name)(task.name, "train", count, seed)
    except (ImportError, AttributeError, ValueError) as error:
        raise DlbenchError(f"task {task.name!r}: its generator {task.generator} fails: {error}") from error
    limit = task.max_new_tokens
    return [Document(d.id, d.input, tuple(d.references), limit, (), i, None, "fit") for i, d in enumerate(drawn)]


def steps(corpus: Corpus, batch_tokens: int, seed: int) -> list[list[Example]]:
    """The texts of every step: each epoch in a new order, cut into steps of about `batch_tokens` tokens."""
    found: list[list[Example]] = []
    for epoch, texts in enumerate(corpus.passes):
        order = list(texts)
        Random(f"{seed}/{epoch}").shuffle(order)
        step: list[Example] = []
        tokens = 0
        for text in order:
            step.append(text)
            tokens += len(text.prompt) + len(text.target)
            if tokens >= batch_tokens:
                found.append(step)
                step, tokens = [], 0
        if step and (2 * tokens >= batch_tokens or not found):
            found.append(step)
        elif step:
            found[-1] = [*found[-1], *step]  # a crumb would get the weight of a whole step
    return found


def share(texts: Sequence[Example], micro_tokens: int, process: int, processes: int) -> list[list[Example]]:
    """What one process takes of a step, in forwards of at most `micro_tokens` tokens, padding counted.

    Texts of similar length go together; every process gets lengths of all kinds.
    """
    mine = sorted(texts, key=lambda e: len(e.prompt) + len(e.target))[process::processes]
    forwards: list[list[Example]] = []
    for text in mine:
        longest = len(text.prompt) + len(text.target)
        if forwards and (len(forwards[-1]) + 1) * longest <= micro_tokens:
            forwards[-1].append(text)
        else:
            forwards.append([text])
    return forwards
