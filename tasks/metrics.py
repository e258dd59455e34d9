"""Metrics of the suites' tasks and of files of documents, per document and with several references.

The YAML of a task names a scoring function of this file: lm-eval's own scoring of several references turns any overlap
into 1.0, and its BLEU and chrF exist for a whole corpus only. To add a metric, write one such function and decorate it
with `metric`; see `dlbench.data.scoring.metric_registry`.

Every score lies between 0 and 1, those of sacrebleu too, so that a board has one scale. A document's score is its best
over the references (BLEU counts matches against all of them at once, as it is defined). Corpus scores are computed from
all (references, output) pairs together. Words are those of `dlbench.data.scoring.words`, in any script; in ASCII they
are what rouge-score and SQuAD's own script make of a text. A zero-width space is white space. BLEU splits all texts of
a task by one tokenizer, see `bleu_tokenized_by`; where none is set, as under lm-eval itself, by that of the references
at hand.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from dlbench.data.scoring.metric_registry import References, Value, metric
from dlbench.data.scoring.metric_registry import is_registered as is_registered
from dlbench.data.scoring.metric_registry import of_files as of_files
from dlbench.data.scoring.metric_registry import signature as signature
from dlbench.data.scoring.words import fields, fold, pieces, unspaced
from dlbench.data.scoring.words import words as words_of

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

Pair = tuple[list[str], str]
"""References and output of a document, from which corpus metrics are computed."""

Scores = dict[str, float | Pair]
"""Value by name: a number, or a pair where the value is defined for a corpus only."""

_PUNCTUATION = frozenset(string.punctuation)
_ARTICLES = frozenset(("a", "an", "the"))
_ROUGE = ("rougeL", "rouge1", "rouge2")

_ANSWER = re.compile(r"\banswer\s*:\s*(-?\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)
_PLAIN_SIGNS = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | {0x2212: "-", 0x066B: ".", 0x066C: ","}
_PLAIN_SIGNS |= {0x200B: " "}
"""Character → ASCII: full-width characters, the minus sign, separators in Arabic numbers, the zero-width space."""
_TOKENIZER: ContextVar[str | None] = ContextVar("_TOKENIZER", default=None)


@contextmanager
def bleu_tokenized_by(tokenizer: str) -> Iterator[None]:
    """Let BLEU use one tokenizer of sacrebleu, inside, for all texts."""
    before = _TOKENIZER.set(tokenizer)
    try:
        yield
    finally:
        _TOKENIZER.reset(before)


def rouge(output: str, references: Sequence[str]) -> dict[str, float]:
    """ROUGE-L, ROUGE-1 and ROUGE-2 as F1 without stemming, each the best over the references.

    A reference without words, only of signs, scores 1 if the output equals it, unless it is in ASCII: there rouge-score
    gives 0.
    """
    signs = [one for one in references if not one.isascii() and not words_of(one)]
    if signs and exact_match(output, signs):
        return dict.fromkeys(_ROUGE, 1.0)
    scores = _rouge_scorer().score_multi(list(references), output)
    return {name: float(scores[name].fmeasure) for name in _ROUGE}


def sentence_bleu(output: str, references: Sequence[str]) -> float:
    """Smoothed BLEU of one output, with n-grams up to the length of the output (effective order)."""
    return _share(_bleu(_tokenizer(references)).sentence_score(output, list(references)).score)


def sentence_chrf(output: str, references: Sequence[str]) -> float:
    """The best chrF (character 6-grams, beta 2) of one output over the references."""
    return _share(_chrf().sentence_score(output, list(references)).score)


def bleu_tokenizer(references: Iterable[str]) -> str:
    """Choose sacrebleu's tokenizer for some references: `13a`, its default, or one for scripts without spaces.

    These are `zh` for Chinese and `char` for other scripts, where `13a` takes a whole clause for one word.
    """
    return {"": "13a", "Chinese": "zh", "other": "char"}[unspaced(references)]


def answer(text: str) -> Decimal | None:
    """The number after the last `answer:` of a text, in any digits; None where there is none."""
    numbers = _ANSWER.findall(text if text.isascii() else text.translate(_PLAIN_SIGNS))
    if not numbers:
        return None
    try:
        return Decimal(numbers[-1].replace(",", ""))
    except InvalidOperation:
        return None


def answer_match(output: str, references: Sequence[str]) -> float:
    """1.0 where the output's answer equals, as a number, the answer of any reference."""
    given = answer(output)
    return float(given is not None and any(given == answer(reference) for reference in references))


def exact_match(output: str, references: Sequence[str]) -> float:
    """1.0 where the output equals a reference except for white space."""
    given = fields(output)
    return float(any(given == fields(reference) for reference in references))


def words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: lower case, no punctuation, no articles.

    Letters of scripts without spaces between words are words of their own.
    """
    plain = "".join(c for c in fold(text) if not _is_punctuation(c))
    return [w for run in fields(plain) for w in pieces(run) if w not in _ARTICLES]


def word_f1(output: str, references: Sequence[str]) -> float:
    """The best F1 of the output's words over the references; 1.0 for two texts without words."""
    given = words(output)
    return max(_f1(given, words(reference)) for reference in references)


def answer_exact(output: str, references: Sequence[str]) -> float:
    """1.0 where the output has the same words as a reference."""
    given = words(output)
    return float(any(given == words(reference) for reference in references))


def corpus_bleu(pairs: Iterable[Pair]) -> float:
    """BLEU of a corpus; documents may have different numbers of references."""
    several = list(pairs)
    references, outputs = _streams(several)
    tokenizer = _tokenizer(text for texts, _ in several for text in texts)
    return _share(_corpus_bleu(tokenizer).corpus_score(outputs, references).score)


def corpus_chrf(pairs: Iterable[Pair]) -> float:
    """The chrF of a corpus."""
    references, outputs = _streams(pairs)
    return _share(_chrf().corpus_score(outputs, references).score)


def _rouge_how(_: References) -> str:
    from importlib.metadata import version

    return f"ROUGE: rouge-score {version('rouge-score')}, words of any script, F1, no stemming, best reference"


def _bleu_how(references: References) -> str:
    return f"bleu: sacrebleu {_settings(_bleu(_tokenizer_of(references)), references)}, a document at a time"


def _corpus_bleu_how(references: References) -> str:
    return f"corpus_bleu: sacrebleu {_settings(_corpus_bleu(_tokenizer_of(references)), references)}"


def _chrf_how(references: References) -> str:
    return f"chrf: sacrebleu {_settings(_chrf(), references)}"


ROUGE = tuple(Value(name, _rouge_how) for name in _ROUGE)
BLEU_SCORE, CORPUS_BLEU = Value("bleu", _bleu_how), Value("corpus_bleu", _corpus_bleu_how, corpus_bleu)
CHRF_SCORE, CORPUS_CHRF = Value("chrf", _chrf_how), Value("corpus_chrf", _chrf_how, corpus_chrf)
F1 = Value("f1", "f1: of words of any script without case, punctuation and articles (SQuAD), best reference")
EXACT = Value("exact", "exact: equals a reference but for white space")
EXACT_WORDS = Value("exact", "exact: equals a reference but for case, punctuation and articles (SQuAD)")
EXACT_NUMBER = Value("exact", "exact: the number after `answer:` equals a reference's")
DEFAULT = "rougeL"
"""What a file of documents is scored by, unless --metric says otherwise."""


@metric(*ROUGE)
def score_summary(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a summary: ROUGE."""
    return rouge(results[0], doc["references"])


@metric(CHRF_SCORE, BLEU_SCORE, CORPUS_CHRF, CORPUS_BLEU)
@metric(BLEU_SCORE, CHRF_SCORE, CORPUS_BLEU, CORPUS_CHRF)
def score_translation(doc: Mapping[str, Any], results: Sequence[str]) -> Scores:
    """Score a translation by chrF and BLEU."""
    output, references = results[0], list(doc["references"])
    pair = (references, output)
    return {
        "chrf": sentence_chrf(output, references),
        "bleu": sentence_bleu(output, references),
        "corpus_bleu": pair,
        "corpus_chrf": pair,
    }


@metric(EXACT)
def score_exact(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a text that must equal a reference except for white space."""
    return {"exact": exact_match(results[0], doc["references"])}


@metric(F1, EXACT_WORDS)
def score_answer(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a short answer: F1 of its words, exact match beside."""
    output, references = results[0], list(doc["references"])
    return {"f1": word_f1(output, references), "exact": answer_exact(output, references)}


@metric(*ROUGE, BLEU_SCORE, CORPUS_BLEU, of_files=False)
def score_data2text(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float | Pair]:
    """Score a description of a table: ROUGE, BLEU beside."""
    output, references = results[0], list(doc["references"])
    return {
        **rouge(output, references),
        "bleu": sentence_bleu(output, references),
        "corpus_bleu": (references, output),
    }


@metric(EXACT_NUMBER, of_files=False)
def score_math(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Score a word problem: its answer alone, not the steps."""
    return {"exact": answer_match(results[0], doc["references"])}


@metric(CHRF_SCORE, EXACT, CORPUS_CHRF, of_files=False)
def score_translate(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float | Pair]:
    """Score a translation into a made-up language: chrF, exact match beside."""
    output, references = results[0], list(doc["references"])
    return {
        "chrf": sentence_chrf(output, references),
        "exact": exact_match(output, references),
        "corpus_chrf": (references, output),
    }


def _tokenizer(references: Iterable[str]) -> str:
    return _TOKENIZER.get() or bleu_tokenizer(references)


def _tokenizer_of(references: References) -> str:
    return _tokenizer(text for several in references for text in several)


def _settings(library: BLEU | CHRF, references: References) -> str:
    """The signature of sacrebleu itself, which exists once the metric has scored something."""
    counts = {len(several) for several in references}
    count = str(counts.pop()) if len(counts) == 1 else "var"
    library.corpus_score(["a"], [["a"]])
    return str(library.get_signature().format()).replace("nrefs:1", f"nrefs:{count}")


def _is_punctuation(character: str) -> bool:
    if character.isascii():
        return character in _PUNCTUATION
    return unicodedata.category(character).startswith("P")


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def _share(percent: float) -> float:
    # sacrebleu's logarithms overshoot a perfect 100 by rounding.
    return min(percent / 100, 1.0)


def _streams(pairs: Iterable[Pair]) -> tuple[list[list[Any]], list[str]]:
    """Turn references per document into sacrebleu's streams: the n-th reference of every document, None if missing."""
    # Any: sacrebleu takes None for a missing reference, but its annotations say str.
    all_references, outputs = zip(*pairs, strict=True)
    return [list(stream) for stream in zip_longest(*all_references)], list(outputs)


# Imported on use: rouge-score imports nltk, and neither is needed to list tasks or to count tokens.
@functools.cache
def _rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_ROUGE), tokenizer=_Words())


class _Words:
    """Splits texts for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@functools.cache
def _bleu(tokenizer: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, tokenize=tokenizer)


@functools.cache
def _corpus_bleu(tokenizer: str) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer)


@functools.cache
def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()
