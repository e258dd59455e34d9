"""Faults of a submission: each kind has a code, and a remedy for its author."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType

REMEDIES = MappingProxyType(
    {
        # the folder
        "manifest-missing": "give the folder that `dlbench run --official` wrote; it holds submission.json",
        "manifest-invalid": "pack the run again; submission.json is not edited by hand",
        "manifest-not-canonical": "pack the run again; submission.json has one way to be written",
        "future-schema": "take a newer dlbench, or pack the run with this one",
        "duplicate-key": "an object names one key twice, so that readers may differ; pack the run again",
        "not-finite": "no figure is NaN or infinite; pack the run again",
        "seal": "submission.json was changed after it was sealed; pack the run again",
        "protocol": "run again with a dlbench of the board's protocol",
        "path-unsafe": "paths are relative, in ASCII, without `..`, and belong to the layout of a submission",
        "link": "submissions hold plain files: copy what the link leads to",
        "archive": "send files unpacked, no archives",
        "file-missing": "pack the run again",
        "file-extra": "remove the file, or pack the run again so that the manifest lists it",
        "file-truncated": "the file is shorter or longer than the manifest says; copy the folder again",
        "file-hash": "the file is not the one that was packed; copy the folder again",
        "too-large": "submissions are limited: see leaderboard/SUBMITTING.md",
        # lines
        "line-invalid": "the line breaks the schema of its file; pack the run again",
        "cut-line": "the file ends within a line; copy it again",
        # records
        "no-records": "records.jsonl holds no row",
        "record-twice": "keep one of the rows",
        "oracle-row": "oracle rows know the references and are made by the board; pack again without them",
        "content-missing": "pack the run again: submission.json says of each row what its key is made of",
        "content-key": "the row's key is not the hash of what it says it is made of; run again",
        "content-differs": "record and key are made of different things; run again",
        "track": "the row names another track than its task, data and backbone give; run again",
        "beyond-samples": "nothing in a submission shows that this is true; pack again, which leaves it out",
        "trust-claimed": "trust is given by those who check; a submission is self-reported",
        "source-missing": "the code of the method is not in the submission; pack again",
        "source-hash": "the packed code is not the code that ran; run and pack again",
        "weights-invalid": "weights are one plain safetensors file per fit; pack again",
        "weights-differ": "the packed weights are not those that ran; run and pack again",
        "fit-missing": "the fitted artifact of a row is not in the submission; pack again",
        "fit-differs": "the packed fit and the row name different facts; run and pack again",
        "status": "the row's status does not follow from its budget and layer share; run again",
        # documents and samples
        "task-unknown": "official runs take tasks that this dlbench has",
        "task-version": "the task has another version here; run again with it",
        "documents-differ": "prompts, references or ids are not the task's; run again on the task's data",
        "task-facts": "the record's facts about its task are not the task's; run again",
        "samples-missing": "a row has one sample for each document of the task; run again to complete it",
        "sample-unknown": "the sample's document is not the task's; remove it by running again",
        "sample-twice": "one sample per document; run again",
        "sample-order": "samples stand in the task's order; pack again",
        "score-differs": "the score is not what the task gives this output; run again",
        "prompt-differs": "the prompt's tokens are not those that full depth read; run again",
        "routes-shape": "routes have a digit per layer and cover each decode forward; run again",
        "tokens-forwards": "every token but the first is one decode forward; run again",
        "layers-differ": "executed layers are not those of the routes; run again",
        "flops-layers": "FLOPs of layers do not follow from the routes; run again",
        "flops-attention": "FLOPs of attention do not follow from routes and context; run again",
        "flops-heads": "fewer exit heads are charged than the routes need; run again",
        "flops-kv": "FLOPs of keys and values do not fit the skipped tokens; run again",
        "flops-prompt": "FLOPs of the prompt do not follow from its length; run again",
        "flops-executed": "fewer FLOPs were executed than credited; run again",
        "full-missing": "the base backbone at full depth is part of every submission; run `full` as well",
        "full-skips": "full depth runs every layer for every token, and nothing else; run again",
        # records from samples
        "quality-differs": "the record's quality is not that of its samples; run again",
        "compute-sums": "the record's FLOPs and tokens are not the sums over its samples; run again",
        "share-layer": "the layer share is not that of the samples; run again",
        "share-decode": "the decode FLOP share is not that of the samples; run again",
        "share-total": "the total FLOP share is not that of the samples; run again",
        # sizes
        "costs-missing": "submission.json gives the sizes of every backbone; pack again",
        "costs-differ": "the costs per layer are not those of full depth's samples; pack again",
        # times
        "timing-unknown": "a time belongs to a row of the submission; pack again",
        "timing-twice": "one time per row and batch size; run again",
        "timing-differs": "the time per document does not follow from prefill, rate and forwards; run again",
        # the official protocol
        "not-official": "run with --official; it fixes what is compared",
        "limited": "official rows cover all documents: leave --limit away",
        "cut-prompts": "official rows cut no prompt: take a model with a longer context",
        "suite-incomplete": "official runs take whole suites",
        "control-missing": "official rows stand beside the controls random_skip and unified_skip; run again",
        "budget-missing": "all methods of an official run have the budgets of the controls; leave --budget away",
        "seeds-missing": "a method that learns is fitted with at least three seeds: --fit-seeds 3",
        "seed": "official runs have seed 0, and fits the seeds from 0 on; run again",
        "timing-missing": "official rows are timed at batch 1 and 16; run again without --no-timing",
        "hardware-missing": "official records and times name their machine; run again",
        # last resort
        "check-failed": "a check could not be carried out; report the submission to the maintainers of dlbench",
    }
)
"""Code → what the author does about it."""
SHOWN = 10
"""Most faults of one code that are listed; the others are counted."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    code: str
    where: str
    """File, line, row or document."""
    what: str
    """One line."""

    @property
    def remedy(self) -> str:
        """What the author does about it."""
        return REMEDIES[self.code]


@dataclass
class FaultList:
    """All faults of a submission, of each code the first few."""

    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, code: str, where: str, what: str) -> None:
        """Add a fault; texts of a submission are untrusted, so that control characters are shown by their escapes."""
        assert code in REMEDIES, code
        self.counts[code] += 1
        if self.counts[code] <= SHOWN:
            self.faults.append(Fault(code, _shown(where), _shown(what)))

    @property
    def codes(self) -> set[str]:
        """Codes of all faults."""
        return set(self.counts)


def _shown(text: str) -> str:
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text[:400])
    return printable.encode("utf-8", "replace").decode()
