"""Samples, documents and conditions made by hand, for the arithmetic of records."""

import tiny_models

from dlbench.data.document import Document
from dlbench.evaluation.settings import Conditions
from dlbench.models.backbone import wrap
from dlbench.records.schema import Flops, Sample, Tokens
from dlbench.running.config import RunSpec

SHA = "ab" * 32


def sample(id_, score=0.5, layers=(2, 4), *, prompt=10, flops=None, prompt_flops=100, output="text", **more):
    """A sample that wrote len(layers) + 1 tokens; `flops` go to the layers."""
    credited = sum(layers) if flops is None else flops
    return Sample(
        id=id_,
        output=output,
        score=score,
        layers=tuple(map(float, layers)),
        truncated=more.pop("truncated", False),
        tokens=Tokens(prompt=prompt, generated=len(layers) + 1),
        flops=Flops(layers=credited, attention=0, heads=0, kv=0, router=0),
        prompt_flops=prompt_flops,
        executed_flops=more.pop("executed", credited),
        **more,
    )


def document(id_, references=("text",), index=0):
    return Document(id_, "prompt", tuple(references), 8, (), index, None)


class FakeTask:
    """Scores an output against chosen references by a table: output -> score per reference."""

    name, version, metric, max_new_tokens = "toy", "1", "match", 8
    is_loglikelihood, wants_chat, fit_split, data = False, False, "train", ""
    scoring_sha256 = SHA

    def __init__(self, table=None):
        self.table = {} if table is None else table

    def corpora(self, documents, outputs):
        return {}

    def signature(self, documents):
        return "match: by a table"

    def choose_references(self, document, output, indices):
        return max(self.table[output][i] for i in indices)


def conditions(task=None, depth=4, **options):
    """The conditions of a run of the toy task on a tiny backbone, as the run's options give them."""
    backbone = wrap(tiny_models.build("llama", depth=depth), name="tiny", sha256=SHA)
    spec = RunSpec(("tiny",), ("toy",), ("full",), **options)
    policies = {"prompt": spec.prompt, "kv_policy": spec.kv, "limit_first": spec.limit_first}
    return Conditions(backbone, task or FakeTask(), SHA, **policies)
