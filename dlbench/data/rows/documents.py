"""Make documents of a task's rows: prompts, references, answers to score, sources."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from dlbench.data import mirrors
from dlbench.data.document import Chat, Document, Split
from dlbench.data.rows import sources
from dlbench.data.rows.few_shot import Examples
from dlbench.data.splits import Splits
from dlbench.errors import DlbenchError
from dlbench.terminal.quiet import quiet_data_libraries

Row = Mapping[str, Any]

# lm-eval's own default; fixed, so that few-shot examples are the same in every run.
_FEWSHOT_SEED = 1234


class DocumentBuilder:
    """Makes the documents of one task.

    Args:
        name: of the task.
        inner: lm-eval's task.
        splits: say which rows are scored, and which methods are fitted on.
    """

    max_new_tokens: int
    """The task's own limit; 0 where given answers are scored, and nothing is generated."""

    def __init__(self, name: str, inner: Any, splits: Splits) -> None:
        from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS

        self._name, self._inner, self._splits = name, inner, splits
        self._examples = Examples(inner, splits)
        self._metadata: Mapping[str, Any] = inner.config.metadata or {}
        self._generates = inner.OUTPUT_TYPE == "generate_until"
        settings = inner.config.generation_kwargs or {}
        limits = [settings[key] for key in ("max_gen_toks", "max_new_tokens", "max_tokens") if key in settings]
        self.max_new_tokens = int(limits[0] if limits else DEFAULT_MAX_GEN_TOKS) if self._generates else 0
        until = settings.get("until") or []
        self._stop = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)

    def documents(self, split: Split, limit: int | None, chat: Chat | None, *, whole: bool = False) -> list[Document]:
        """The first documents of a split; the arguments are those of `Task.documents`."""
        with quiet_data_libraries():
            places = self._splits.places(split, whole=whole)[:limit]
            rows, ids = self._splits.rows(split), self._splits.ids(split)
        shots = self._inner.config.num_fewshot or 0
        # Examples are drawn in the order of the rows, as lm-eval does: the draw starts anew for every call, and what is
        # set apart from the scored split has its draw too.
        self._inner.set_fewshot_seed(_FEWSHOT_SEED)
        wanted, last = set(places), max(places, default=-1)
        documents = []
        for index in range(last + 1) if shots and split == "test" else places:
            try:
                with self._examples.drawn_for(rows[index], split) if shots else contextlib.nullcontext():
                    context = self._context(rows[index], shots, chat)
            except Exception as error:
                text = " ".join(f"{type(error).__name__}: {error}".split())
                raise DlbenchError(f"task {self._name!r}: no prompt for document {ids[index]!r}: {text}") from error
            if index in wanted:
                make = self._with_prompt if self._generates else self._with_answers
                document = make(rows[index], context, ids[index], index, split, chat)
                document.check()
                documents.append(document)
        return documents

    @cached_property
    def row_sources(self) -> list[str | None]:
        """The source of every row of the scored split; rows that ask the same have one source."""
        dataset = self._inner.config.dataset_path or getattr(self._inner, "DATASET_PATH", None)
        named = self._metadata.get("source")
        own = [sources.source(row, named, dataset, self._name) for row in self._splits.rows("test")]
        return sources.merged(own, self._splits.asked)

    def references(self, row: Row) -> tuple[str, ...]:
        """The references of a row, as text."""
        target = self._inner.doc_to_target(row)
        choices = self._inner.doc_to_choice(row) if self._inner.config.doc_to_choice is not None else None
        targets = target if isinstance(target, list | tuple) else [target]
        return tuple(str(choices[t] if choices is not None and isinstance(t, int) else t) for t in targets)

    def _context(self, row: Row, shots: int, chat: Chat | None) -> str | list[str]:
        """The prompt; one per answer where the answers stand in it."""
        more: dict[str, Any] = (
            {} if chat is None else {"apply_chat_template": True, "chat_template": chat, "fewshot_as_multiturn": True}
        )
        if (system := self._metadata.get("system_instruction")) is not None:
            more["system_instruction"] = system
        made = self._inner.fewshot_context(row, num_fewshot=shots, gen_prefix=self._inner.doc_to_prefix(row), **more)
        return made  # type: ignore[no-any-return]

    def _with_prompt(
        self, row: Row, context: str | list[str], id_: str, index: int, split: Split, chat: Chat | None
    ) -> Document:
        """A document that the model writes a text for."""
        assert isinstance(context, str)
        return Document(
            id=id_,
            prompt=context,
            references=self.references(row),
            limit=self.max_new_tokens,
            stop=self._stop,
            index=index,
            difficulty=int(row["difficulty"]) if "difficulty" in row else None,
            split=split,
            delimiter=str(self._inner.config.target_delimiter) if chat is None else "",
            prompt_tokens=self._metadata.get("prompt_tokens"),
            body=self._body(row, context),
            line=row.get(mirrors.LINE),
            source=self._source(index, split),
        )

    def _with_answers(
        self, row: Row, context: str | list[str], id_: str, index: int, split: Split, chat: Chat | None
    ) -> Document:
        """A document whose given answers are scored by their log-likelihood."""
        inner = self._inner
        more = {} if chat is None else {"apply_chat_template": True, "chat_template": chat}
        made = inner.construct_requests(doc=row, ctx=context, metadata=(self._name, index, 1), **more)
        pairs = tuple((str(i.args[0]), str(i.args[1])) for i in (made if isinstance(made, list) else [made]))
        gold, chance = 0, 0.0
        if inner.OUTPUT_TYPE == "multiple_choice":
            choices = inner.doc_to_choice(row)
            target = inner.doc_to_text(row) if inner.multiple_input else inner.doc_to_target(row)
            several = target if isinstance(target, list) else [target]
            gold = choices.index(several[0]) if isinstance(several[0], str) else int(several[0])
            chance = len(several) / len(choices)
        prompt, continuation = pairs[gold]
        delimiter = continuation[: len(continuation) - len(continuation.lstrip())]
        return Document(
            id=id_, prompt=prompt, references=(continuation.strip(),), limit=1, stop=(), index=index, difficulty=None,
            split=split, pairs=pairs, chance=chance, delimiter=delimiter, source=self._source(index, split),
        )  # fmt: skip

    def _body(self, row: Row, prompt: str) -> tuple[int, int] | None:
        """Start and end of the row's text in the prompt, if the task allows its end to be cut."""
        if self._metadata.get("cut") != "input":
            return None
        start = prompt.rfind(row["input"])
        return (start, start + len(row["input"])) if start >= 0 else None

    def _source(self, index: int, split: Split) -> str | None:
        """What a scored document was taken from, hashed; not needed of documents to fit on."""
        return self.row_sources[index] if split == "test" else None
