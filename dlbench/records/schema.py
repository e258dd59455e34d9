"""The records dlbench writes and reads: one JSON object per line, typed, versioned, limited in size.

Records travel: they are published, sent in and shown on a page, so what is read from a file is untrusted. Reading is
strict (no "3" for 3, no unknown field, no NaN, no endless string); in Python, lists may stand for tuples.

    records.jsonl          `Record`     quality and compute of one method at one budget on one task
    timing.jsonl           `Timing`     seconds, kept apart because they belong to a machine
    samples/<key>.jsonl    `Sample`     one document of one record
    documents.jsonl        `Asked`      what each test document asked, and the references
    scores.jsonl           `Scores`     the scores alone, where the samples are not published
    sources.jsonl          `SharedSources`  which documents share a source, where the documents are not published
    usage.jsonl            `Usage`      which layers ran how often, where the samples are not published
    *candidate*.jsonl      `CandidateScore`  one fixed set of layers an oracle may choose for one document
"""

from __future__ import annotations

from dlbench.records.fields import Trust
from dlbench.records.jsonl import parse_line, read_lines, write_lines
from dlbench.records.record import (
    Backbone,
    Compute,
    Fit,
    Flops,
    MethodUsed,
    Quality,
    Record,
    Run,
    Speculation,
    Task,
    Timing,
    Tokens,
)
from dlbench.records.sample import Asked, CandidateScore, Sample, Scores, SharedSources, Usage

__all__ = [
    "Asked",
    "Backbone",
    "CandidateScore",
    "Compute",
    "Fit",
    "Flops",
    "MethodUsed",
    "Quality",
    "Record",
    "Run",
    "Sample",
    "Scores",
    "SharedSources",
    "Speculation",
    "Task",
    "Timing",
    "Tokens",
    "Trust",
    "Usage",
    "parse_line",
    "read_lines",
    "write_lines",
]
