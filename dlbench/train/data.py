"""Training texts: fresh documents where the task can generate them, else the learn part of its fit split.

All texts are made before the first step and depend on the seed alone, so that a resumed training sees the same texts in
the same order. Documents whose prompt is that of a test document, or of one that quality is measured on, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from random import Random
from typing import Any

from dlbench.data.document import Document, documents_sha256
from dlbench.data.task import Task
from dlbench.errors import DlbenchError
from dlbench.fit import halves
from dlbench.models.backbone import Backbone
from dlbench.prompting.teacher_forcing import Example, example
from dlbench.train.card import TrainingSource

DRAWN = 10_000
"""Documents generated per task by default."""


@dataclass(frozen=True)
class Corpus:
    """The texts of a training."""

    passes: tuple[list[Example], ...]
    """One list per epoch; each epoch uses the next reference of a document."""
    sources: tuple[TrainingSource, ...]


def tuned_on(task: Task) -> list[Document]:
    """Return the documents that quality is measured on: the tune part of the fit split.

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
        backbone: tokenises them.
        tasks: mixed in equal numbers of documents.
        documents: in total; None for DRAWN per task that generates documents, and all documents of other tasks.
        epochs: None for one where all tasks generate documents, two otherwise.
        seed: of what is generated or sampled.
        say: told the number of texts made, and their total.

    Raises:
        DlbenchError: a task has nothing to learn from, or fewer documents than asked for.
    """
    share = None if documents is None else max(1, documents // len(tasks))
    chosen = [_documents(task, share, seed) for task in tasks]
    epochs = epochs or (1 if all(task.generator for task in tasks) else 2)
    texts = epochs * sum(len(kept) for kept, _ in chosen)
    passes: tuple[list[Example], ...] = tuple([] for _ in range(epochs))
    sources, done = [], 0
    for task, (kept, left_out) in zip(tasks, chosen, strict=True):
        examples: list[Example] = []
        for document in kept:
            examples += _add(backbone, document, passes)
            done += epochs
            if done % 1000 < epochs:
                say(done, texts)
        sources.append(_source(task, kept, left_out, epochs, examples))
    if not all(passes):
        raise DlbenchError("there is nothing to learn from: no prompt leaves room for a reference in the context")
    return Corpus(passes, tuple(sources))


def _source(
    task: Task, documents: Sequence[Document], left_out: int, epochs: int, examples: Sequence[Example]
) -> TrainingSource:
    """What the card says of a task."""
    return TrainingSource(
        task=task.name,
        version=task.version,
        split="train" if task.generator else "fit",
        generator=task.generator,
        sha256=documents_sha256(documents),
        documents=len(documents),
        left_out=left_out,
        epochs=epochs,
        tokens=sum(len(e.prompt) + len(e.target) for e in examples),
        targets=sum(len(e.target) for e in examples),
    )


def _add(backbone: Backbone, document: Document, passes: Sequence[list[Example]]) -> list[Example]:
    """Add a document to every epoch, each with the next reference; return what was added."""
    made: dict[int, Example] = {}
    added = []
    for epoch, examples in enumerate(passes):
        reference = epoch % len(document.references)
        if reference not in made:
            made[reference] = example(backbone, document, reference)
        if made[reference].target:
            examples.append(made[reference])
            added.append(made[reference])
    return added


def _documents(task: Task, count: int | None, seed: int) -> tuple[list[Document], int]:
    """Documents to learn from, and how many were left out because they are scored or measured on."""
    excluded = {d.prompt for d in (*task.documents("test"), *tuned_on(task))}
    before = 0 if task.generator else task.fit_overlap
    if task.generator:
        candidates = _draw(task, count or DRAWN, seed)
    else:
        candidates = [d for d in halves(task.documents("fit"))[0] if d.references]
        if count is not None:
            if count > len(candidates):
                raise DlbenchError(
                    f"task {task.name!r} has {len(candidates)} documents to learn from, not {count}: give fewer "
                    "--documents (they are shared evenly by the tasks), or more --epochs"
                )
            candidates = Random(f"{seed}/{task.name}").sample(candidates, count)
    kept = [d for d in candidates if d.prompt not in excluded]
    if not kept:
        raise DlbenchError(f"task {task.name!r} has no documents to learn from")
    return kept, len(candidates) - len(kept) + before


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
    """Return the texts of every step: each epoch in a new order, cut into steps of about `batch_tokens` tokens."""
    groups: list[list[Example]] = []
    for epoch, texts in enumerate(corpus.passes):
        order = list(texts)
        Random(f"{seed}/{epoch}").shuffle(order)
        step: list[Example] = []
        tokens = 0
        for text in order:
            step.append(text)
            tokens += len(text.prompt) + len(text.target)
            if tokens >= batch_tokens:
                groups.append(step)
                step, tokens = [], 0
        if step and (2 * tokens >= batch_tokens or not groups):
            groups.append(step)
        elif step:
            groups[-1] = [*groups[-1], *step]  # a few texts would otherwise get the weight of a whole step
    return groups


def share(texts: Sequence[Example], micro_tokens: int, process: int, processes: int) -> list[list[Example]]:
    """Return the texts of a step that one process takes, in forwards of at most `micro_tokens` tokens, padding counted.

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
