"""One normaliser per dataset of the hub: it turns rows into documents with an input and its references.

The YAML of a task names the dataset and one of these functions (`process_docs`). A local mirror holds the documents
that the function gives, so that prompts and references are the same wherever the data comes from. Rows with the same
input become one document with several references, in the place of the first; rows without text, or without any
reference, are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]


def e2e(rows: Dataset) -> Dataset:
    """tuetschek/e2e_nlg: one row per reference."""
    return _documents((r["meaning_representation"], [r["human_reference"]]) for r in rows)


def triples(rows: Dataset) -> Dataset:
    """GEM/web_nlg: triples as lines of text; train has one target a row, the others a list of references."""
    return _documents((" && ".join(r["input"]), r["references"] or [r["target"]]) for r in rows)


def dart(rows: Dataset) -> Dataset:
    """GEM/dart: triples as lists of three."""
    return _documents(
        (" && ".join(" | ".join(t) for t in r["tripleset"]), r["references"] or [r["target"]]) for r in rows
    )


def common_gen(rows: Dataset) -> Dataset:
    """allenai/common_gen: a set of words, one row per sentence."""
    return _documents((", ".join(r["concepts"]), [r["target"]]) for r in rows)


def multi30k(rows: Dataset) -> Dataset:
    """bentrevett/multi30k, German to English."""
    return _documents(((r["de"], [r["en"]]) for r in rows), grouped=False)


def from_german(rows: Dataset) -> Dataset:
    """wmt/wmt14 and wmt/wmt16, de-en."""
    return _translations(rows, "de")


def from_french(rows: Dataset) -> Dataset:
    """wmt/wmt14, fr-en."""
    return _translations(rows, "fr")


def articles(rows: Dataset) -> Dataset:
    """abisee/cnn_dailymail."""
    return _documents(((r["article"], [r["highlights"]]) for r in rows), grouped=False)


def reports(rows: Dataset) -> Dataset:
    """EdinburghNLP/xsum."""
    return _documents(((r["document"], [r["summary"]]) for r in rows), grouped=False)


def dialogues(rows: Dataset) -> Dataset:
    """knkarthick/samsum and knkarthick/dialogsum, whose test split has three rows per dialogue."""
    return _documents(((r["dialogue"] or "").replace("\r\n", "\n"), [r["summary"]]) for r in rows)


def questions(rows: Dataset) -> Dataset:
    """rajpurkar/squad: passage and question; the annotators' answers are the references."""
    texts = ((f"{r['context']}\n\nQuestion: {r['question']}", list(dict.fromkeys(r["answers"]["text"]))) for r in rows)
    return _documents(texts, grouped=False)


def passage(doc: Row) -> str:
    """The passage of a document of `questions`, which several questions share."""
    return str(doc["input"]).rpartition("\n\nQuestion: ")[0]


def instructions(rows: Dataset) -> Dataset:
    """tatsu-lab/alpaca: the instruction, and the input where there is one."""
    texts = (("\n\n".join(filter(None, (r["instruction"], r["input"]))), [r["output"]]) for r in rows)
    return _documents(texts, grouped=False)


def alpaca(path: str = "tatsu-lab/alpaca", **_: Any) -> Mapping[str, Dataset]:
    """Load tatsu-lab/alpaca, which has a single split, as three of 70, 15 and 15 per cent, shuffled with seed 42.

    Args:
        path: where `datasets` finds it.
        **_: the task's metadata, which lm-eval passes along.
    """
    from datasets import load_dataset

    first = load_dataset(path)["train"].train_test_split(test_size=0.3, seed=42)
    second = first["test"].train_test_split(test_size=0.5, seed=42)
    return {"train": first["train"], "validation": second["train"], "test": second["test"]}


COLUMNS: Mapping[str, Callable[[Row], dict[str, Any]]] = {
    "openai/gsm8k": lambda d: {"question": d["input"], "answer": d["references"][0]},
}
"""Hub dataset of an lm-eval task → makes the columns that the task reads of a document of a mirror."""


def _translations(rows: Dataset, language: str) -> Dataset:
    pairs = (r["translation"] for r in rows)
    return _documents(((p[language], [p["en"]]) for p in pairs), grouped=False)


def _documents(pairs: Iterable[tuple[str | None, Iterable[str | None]]], *, grouped: bool = True) -> Dataset:
    """Documents of (input, references).

    Args:
        pairs: texts may be missing or blank.
        grouped: whether rows of one input are one document.
    """
    from datasets import Dataset

    made: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for text, several in pairs:
        references = [r.strip() for r in several if r and r.strip()]
        if not text or not text.strip() or not references:
            continue
        text = text.strip()
        if grouped and text in places:
            made[places[text]]["references"] += references
            continue
        places[text] = len(made)
        made.append({"input": text, "references": references})
    return Dataset.from_list(made)
