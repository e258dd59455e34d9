"""Synthetic runs that look like real ones: tasks of different scale, all kinds of rows, timings and samples."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlbench.leaderboard.analysis.claims import claims
from dlbench.leaderboard.board import board_of
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.records.schema import Asked, Record, Sample, Timing, write_lines
from dlbench.stats import retained

TASKS = {
    # name: metric, scale, quality of full, what halving the depth costs
    "nano_d2t": ("rougeL", 1.0, 0.78, 0.10),
    "nano_summary": ("rougeL", 1.0, 0.81, 0.06),
    "nano_math": ("exact_match", 1.0, 0.74, 0.30),
    "nano_translate": ("chrf", 100.0, 0.89, 0.14),
}
BUDGETS = (0.25, 0.5, 0.75)
# method: kind, params (the first is the knob), how much better (+) or worse (−) than the plain loss
METHODS = {
    "static_skip": ("static", {"keep": 8}, 0.02),
    "static_exit": ("static", {"depth": 8}, -0.12),
    "unified_skip": ("static", {"speedup": 2.0}, 0.01),
    "random_skip": ("control", {"rate": 0.5}, -0.20),
    "calm": ("token", {"threshold": 0.9, "signal": "p1-p2", "check": (4, 8, 12)}, -0.04),
    "hidden_router": ("token", {"threshold": 0.1, "fixed_input": False}, 0.03),
}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class SyntheticRun:
    """Records, timings and samples that belong together."""

    records: list[Record] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        write_lines(folder / "records.jsonl", self.records)
        write_lines(folder / "timing.jsonl", self.timings)
        write_lines(folder / "documents.jsonl", self.asked)
        for key, samples in self.samples.items():
            write_lines(folder / "samples" / f"{key}.jsonl", samples)
        return folder


def board_from(records, scores, sources=None, timings=()):
    """Return the board of records that were never written: what `read_board` gives of their folder."""
    tracks = tuple(build_tracks(records, timings))
    return board_of(Runs(tuple(records), tuple(timings), tracks, scores, sources=sources or {}))


def claims_of(records, scores):
    """Return the claims that a board of these records makes."""
    return claims(build_tracks(records), scores)


def headlines_of(records, scores):
    """Return the lines that sum up a board of these records."""
    return board_from(records, scores).headlines()


def backbone(name="nano"):
    layers = 8 if name == "nano-half" else 16
    return {
        "name": name,
        "family": "llama",
        "layers": layers,
        "dtype": "float32",
        "sha256": sha(name),
        "base_sha256": sha("nano"),
    }


def record(name="static_skip", *, task="nano_summary", scores=None, full=None, on="nano", **changes):
    """Return one record; `changes` replace parts by name, merged one level deep."""
    metric = TASKS[task][0] if task in TASKS else "rougeL"
    scores = np.full(40, 0.6) if scores is None else scores
    kept = retained(scores, full, resamples=500) if full is not None else None
    parts = {
        "track": f"{task}/1/full",
        "backbone": backbone(on),
        "method": {
            "name": name,
            "params": {},
            "source_sha256": sha(name),
            "deployable": not name.startswith("oracle"),
            "kind": "static",
        },
        "task": {"name": task, "version": "1", "metric": metric, "n": len(scores)},
        "run": {"budget": 0.5, "prompt": "full", "kv": "project", "seed": 0, "max_new_tokens": 96},
        "quality": {
            "mean": float(scores.mean()),
            "full_mean": None if full is None else float(full.mean()),
            "retained": None if kept is None else kept.estimate,
            "retained_ci95": None if kept is None else (kept.low, kept.high),
        },
        "compute": {
            "layer_share": 0.5,
            "flop_share_decode": 0.52,
            "flop_share_total": 0.7,
            "flops": {"layers": 10**9, "attention": 10**7, "heads": 10**8, "kv": 10**6, "router": 0},
            "executed_flops": 12 * 10**8,
            "tokens": {"prompt": 9000, "generated": 4200},
        },
        "env": {"dlbench": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "transformers": "5.23.0"},
    }
    for part, value in changes.items():
        parts[part] = parts[part] | value if isinstance(value, dict) and isinstance(parts.get(part), dict) else value
    parts["key"] = sha(json.dumps({k: parts[k] for k in ("track", "backbone", "method", "run")}, sort_keys=True))[:32]
    return Record.model_validate(parts)


def synthetic_run(documents=60, seed=0, tasks=tuple(TASKS)):
    """Return a whole run over all kinds of rows."""
    run = SyntheticRun()
    for task in tasks:
        _add_task(run, task, documents, np.random.default_rng([seed, *task.encode()]))
    return run


def _add_task(run, task, documents, rng):
    metric, scale, best, cost = TASKS[task]
    hardness = rng.normal(0, 0.08, documents)

    def draw(mean, noise=0.05):
        if metric == "exact_match":
            return (rng.random(documents) < np.clip(mean + hardness, 0, 1)).astype(float)
        return scale * np.clip(mean + hardness + rng.normal(0, noise, documents), 0, 1)

    full = draw(best)
    for place in range(documents):
        prompt = f"Where does house {place} stand?\nanswer:"
        track = f"{task}/1/full"
        wanted = ("By the river.", "There.")
        run.asked.append(Asked(track=track, id=f"{task}/{place}", prompt=prompt, references=wanted))

    def add(name, kind, scores, share, params=None, against=full, on="nano", budget=None, notes=(), total=None, **more):
        params = params or {}
        made = record(
            name,
            task=task,
            scores=scores,
            full=against,
            on=on,
            method={"params": params, "kind": kind, "knob": next(iter(params), None)},
            run={"budget": budget},
            compute={
                "layer_share": share,
                "flop_share_decode": 0.06 + 0.94 * share,
                "flop_share_total": total or 0.30 + 0.70 * (0.06 + 0.94 * share),
            },
            notes=notes,
            **more,
        )
        run.records.append(made)
        run.samples[made.key] = [
            _sample(f"{task}/{place}", float(score), share, name, rng) for place, score in enumerate(scores)
        ]
        if made.status == "ok" and not name.startswith("oracle"):
            run.timings += [_timing(made, batch, share, rng) for batch in (1, 16)]

    add("full", "baseline", full, 1.0)
    add("full", "baseline", draw(best - 0.7 * cost), 1.0, on="nano-half", total=0.51)
    for budget in BUDGETS:
        depth_lost = (1 - budget) / 0.5
        for name, (kind, params, bonus) in METHODS.items():
            mean = best - cost * depth_lost**1.4 + bonus * depth_lost
            realised = budget + float(rng.normal(0, 0.008)) * (kind != "static")
            params = params | {next(iter(params)): round(float(rng.random()), 4)}
            unreachable = name == "calm" and budget == 0.25
            add(
                name,
                kind,
                draw(max(mean, 0.03)),
                0.41 if unreachable else realised,
                params,
                budget=budget,
                status="unreachable" if unreachable else "ok",
                notes=("closest setting: 0.41 of the layers",) if unreachable else (),
            )
            if name == "hidden_router":
                constant = params | {"fixed_input": True}
                add(name, kind, draw(mean - 0.015), realised, constant, budget=budget)
        raw = draw(min(best + 0.06 - 0.3 * cost * depth_lost, 0.99))
        add("oracle", "oracle", raw, budget - 0.01, budget=budget)
        if task == "nano_d2t":
            add("oracle_cross", "oracle", raw - 0.07, budget - 0.01, budget=budget)
    add("oracle@full", "oracle", draw(min(best + 0.09, 0.99)), 1.0, budget=1.0, notes=("8 sampled outputs",))


PIECES = (" The", " red", " house", " stands", " by", " the", " river", ".", "</s>")


def _sample(name, score, share, method, rng):
    """Return a sample of nine tokens: full's text, with a word or two changed the more layers are left out."""
    pieces = list(PIECES)
    for place in range(7):
        if method != "full" and rng.random() < (1 - share) / 2:
            pieces[place] = f" {rng.choice(['blue', 'old', 'hill', 'a'])}"
    routes = [("3" * 16, 8)]
    if share < 1:
        ran = rng.random((8, 16)) < share if method == "hidden_router" else np.arange(16) < round(16 * share)
        ran = np.broadcast_to(ran, (8, 16))
        routes = [("".join("3" if one else "0" for one in row), 1) for row in ran]
    return Sample(
        id=name,
        output="".join(pieces[:-1]),
        score=score,
        layers=[float(route.count("3")) for route, times in routes for _ in range(times)],
        routes=routes,
        pieces=pieces,
        truncated=False,
        tokens={"prompt": 40, "generated": 9},
        flops={"layers": 10**6, "attention": 10**4, "heads": 0, "kv": 0, "router": 0},
        prompt_flops=10**7,
        executed_flops=11 * 10**6,
    )


def _timing(made, batch, share, rng):
    per_token = (0.9 + 9.5 * share * (made.backbone.layers / 16)) * (1 if batch == 1 else 1.9)
    return Timing(
        key=made.key,
        method=made.method.name,
        task=made.task.name,
        budget=made.run.budget,
        batch_size=batch,
        device="cpu",
        threads=2,
        decode_ms_per_token=per_token,
        ms_per_document=per_token * 70 / batch,
        prefill_ms_per_document=31.0,
        speedup=10.4 * (1 if batch == 1 else 1.9) / per_token,
        spread=float(rng.uniform(0.02, 0.1)),
        repeats=5,
    )
