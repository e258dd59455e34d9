"""A sweep: one prefill and twelve decodings of ours, beside twelve runs of lm-eval's `hf` model."""

from __future__ import annotations

from dlbench.bench.models import random_llama, random_texts, word_tokenizer
from dlbench.bench.requests import LM_EVAL, OURS, LmEval, Ours, compare, race_of
from dlbench.bench.workbench import Workbench
from dlbench.data.document import Document
from dlbench.method import Method
from dlbench.methods.calm import Calm
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip
from dlbench.methods.unified_skip import UnifiedSkip

BATCH = 16


def configurations() -> list[Method | None]:
    """Return twelve settings like those of a run: full depth, static sets, per sequence, per token."""
    return [
        None,
        *(StaticSkip(share=share) for share in (0.25, 0.5, 0.75)),
        *(StaticExit(share=share) for share in (0.25, 0.5)),
        UnifiedSkip(),
        RandomSkip(share=0.5, per="sequence"),
        *(RandomSkip(share=share, per="token") for share in (0.25, 0.5)),
        Calm(),
        HiddenRouter(),
    ]


def sweep(bench: Workbench) -> None:
    """Time lm-eval runs and sweeps of ours in turns; lm-eval needs one run per configuration."""
    sizes, shape = bench.sizes, bench.sizes.narrow
    backbone = random_llama(shape, device=bench.device, dtype=bench.dtype, tokenizer=word_tokenizer(shape.vocabulary))
    texts = random_texts(sizes.sweep_prompts, sizes.sweep_lengths, shape.vocabulary)
    documents = [
        Document(
            id=str(index),
            prompt=text,
            references=(),
            limit=sizes.sweep_tokens,
            stop=(),
            index=index,
            difficulty=None,
        )
        for index, text in enumerate(texts)
    ]
    methods = configurations()
    group = f"{shape}, {len(texts)} prompts of {sizes.sweep_lengths[0]}–{sizes.sweep_lengths[1]} tokens"
    bench.say(f"sweep: {group}")
    theirs = LmEval(backbone, [documents], BATCH, bench.watch)
    ours = Ours(bench.engine(backbone, metered=True), [documents], BATCH, bench.watch, methods)
    single, whole = f"{LM_EVAL}, 1 run", f"{OURS}, {len(methods)} configurations"
    times = race_of(bench, {single: theirs, whole: ours}, sizes.sweep_rounds)
    bench.keep_times("sweep", group, "ms/prompt", times)
    quotients = [len(methods) * q for q in times.quotients(single, whole)]
    how = f"{len(quotients)} lm-eval runs measured, their time × {len(methods)}"
    bench.ratio("sweep_speedup_vs_lm_eval", quotients, how)
    bench.notes.append(f"sweep, full depth: {compare(ours.texts, theirs.texts, ours.near_ties)}")
