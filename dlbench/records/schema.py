"""The schema of what dlbench writes and reads: one JSON object per line, typed, versioned, limited in size.

Records are published, submitted and shown on pages, so what is read from a file is untrusted. Reading is strict: no "3"
for 3, no unknown field, no NaN, no string of unlimited length. In Python, lists may stand for tuples.

    records.jsonl          `Record`         quality and compute of one method at one budget on one task
    timing.jsonl           `Timing`         times, kept apart because they belong to a machine
    samples/<key>.jsonl    `Sample`         one document of one record
    documents.jsonl        `Asked`          the prompt of each test document, and its references
    scores.jsonl           `Scores`         the scores alone, where the samples are not published
    sources.jsonl          `SharedSources`  which documents share a source, where the documents are not published
    usage.jsonl            `Usage`          which layers ran how often, where the samples are not published
    *candidate*.jsonl      `CandidateScore` the score of one fixed set of layers on one document, for an oracle
"""

from __future__ import annotations

from dlbench.records.fields import Trust
from dlbench.records.jsonl import parse_line, read_lines, write_lines
from dlbench.records.record import (
    BackboneInfo,
    Compute,
    Fit,
    Flops,
    Hardware,
    MethodUsed,
    Quality,
    Record,
    Run,
    Speculation,
    TaskUsed,
    Timing,
    Tokens,
    TuneScore,
)
from dlbench.records.sample import Asked, CandidateScore, Sample, Scores, SharedSources, Usage

__all__ = [
    "Asked",
    "BackboneInfo",
    "CandidateScore",
    "Compute",
    "Fit",
    "Flops",
    "Hardware",
    "MethodUsed",
    "Quality",
    "Record",
    "Run",
    "Sample",
    "Scores",
    "SharedSources",
    "Speculation",
    "TaskUsed",
    "Timing",
    "Tokens",
    "Trust",
    "TuneScore",
    "Usage",
    "parse_line",
    "read_lines",
    "write_lines",
]
