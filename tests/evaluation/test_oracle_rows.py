"""Oracle rows against brute force over all choices of a candidate per document."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from record_samples import FakeTask, conditions, document, sample

from dlbench.evaluation import aggregate
from dlbench.evaluation.aggregate import Evaluation, Reference
from dlbench.evaluation.oracle import OracleRows
from dlbench.evaluation.settings import oracle_settings
from dlbench.method import Candidate, Oracle
from dlbench.records.jsonl import read_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import Sample
from dlbench.stats import retained

DEPTH = 4
SETS = {"full": (0, 1, 2, 3), "one": (0,), "two": (0, 3), "three": (0, 1, 2)}
DOCUMENTS = ("a", "b", "c", "d", "e")


class Given(Oracle):
    def candidates(self, depth):
        return [Candidate(name, layers) for name, layers in SETS.items()]


class World:
    """Constructed samples of every candidate and of every full-depth output."""

    def __init__(self, tmp_path, *, references=1, seed=0):
        rng = np.random.default_rng(seed)
        self.settings, self.samples, self.table = [], {}, {}
        self.conditions = conditions(FakeTask(self.table))
        self.documents = [document(d, ["r"] * references, i) for i, d in enumerate(DOCUMENTS)]
        for setting in oracle_settings(Given(), DEPTH, 0):
            setting = self.conditions.with_key(setting)
            self.settings.append(setting)
            depth = len(setting.candidate.layers)
            self.samples[setting.key] = {}
            for d in DOCUMENTS:
                output = f"{setting.candidate.name}/{setting.sample}/{d}"
                by_reference = [float(v) / 8 for v in rng.integers(0, 9, references)]
                self.table[output] = by_reference
                self.samples[setting.key][d] = sample(d, max(by_reference), (depth,) * 3, output=output)
        self.base = Reference(DEPTH, self.engine_costs(), self.samples[self.key("full")])
        self.store = Store(tmp_path)

    @staticmethod
    def engine_costs():
        from types import SimpleNamespace

        return SimpleNamespace(dense=lambda prompt, generated: 4 * (generated - 1))

    def key(self, name, stream=None):
        return next(s.key for s in self.settings if s.candidate.name == name and s.sample == stream)

    def score(self, name, d, which=slice(None), stream=None):
        return max(self.table[f"{name}/{stream}/{d}"][which])

    def rows(self, budgets=(0.25, 0.5, 0.75, 1.0)):
        evaluation = Evaluation(self.conditions, self.documents, self.base)
        found = OracleRows(evaluation, "oracle", Given(), self.settings, self.samples.__getitem__, self.store).run(
            budgets
        )
        return {(r.method.name, r.run.budget): r for r in found}

    def brute(self, budget, which=slice(None)):
        """Best mean score, and every choice that reaches it with the fewest layers."""
        best, least, choices = -1.0, 0, []
        for names in itertools.product(SETS, repeat=len(DOCUMENTS)):
            layers = sum(len(SETS[n]) for n in names)
            if layers > budget * DEPTH * len(DOCUMENTS) + 1e-9:
                continue
            score = sum(self.score(n, d, which) for n, d in zip(names, DOCUMENTS, strict=True))
            if score > best or (score == best and layers < least):
                best, least, choices = score, layers, [names]
            elif score == best and layers == least:
                choices.append(names)
        return best / len(DOCUMENTS), choices


@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_is_the_best_choice_that_the_budget_allows(tmp_path, seed):
    world = World(tmp_path, seed=seed)
    rows = world.rows()
    for budget in (0.25, 0.5, 0.75, 1.0):
        row = rows["oracle", budget]
        best, choices = world.brute(budget)
        assert row.quality.mean == pytest.approx(best)
        assert row.compute.layer_share <= budget + 1e-9
        assert row.status == "ok" and not row.method.deployable and row.method.kind == "oracle"
        chosen = list(read_lines(world.store.path(row.key), Sample))
        assert [s.id for s in chosen] == list(DOCUMENTS)
        assert tuple(s.choice for s in chosen) in choices
        assert all(s.output == f"{s.choice}/None/{s.id}" and s.layers == (len(SETS[s.choice]),) * 3 for s in chosen)
    assert rows["oracle", 0.25].quality.mean == pytest.approx(np.mean([world.score("one", d) for d in DOCUMENTS]))
    assert not any(name == "oracle_cross" for name, _ in rows)  # one reference cannot be split


def test_least_depth_that_equals_full(tmp_path):
    world = World(tmp_path, seed=1)
    (note,) = world.rows((0.5,))["oracle", 0.5].notes
    full = np.mean([world.score("full", d) for d in DOCUMENTS])
    share = next(n / 20 for n in range(5, 21) if world.brute(n / 20)[0] >= full - 1e-12)
    assert note == f"equals full quality at {share:.3f} of the layers" and share < 1


def test_the_oracle_of_full_depth_chooses_among_as_many_outputs(tmp_path):
    world = World(tmp_path, seed=2)
    row = world.rows((0.5,))["oracle@full", None]
    best = [max(world.score("full", d, stream=s) for s in (None, 1, 2, 3)) for d in DOCUMENTS]
    assert row.quality.mean == pytest.approx(np.mean(best))
    assert row.compute.layer_share == 1.0 and not row.method.deployable
    chosen = list(read_lines(world.store.path(row.key), Sample))
    assert {s.choice for s in chosen} <= {"greedy", "sample-1", "sample-2", "sample-3"} and len(chosen) == 5
    assert [s.score for s in chosen] == best


@pytest.mark.parametrize("seed", range(3))
def test_the_honest_oracle_is_scored_where_it_did_not_choose(tmp_path, seed):
    world = World(tmp_path, references=4, seed=seed)
    rows = world.rows((0.5, 0.75))
    halves = (slice(0, None, 2), slice(1, None, 2))
    for budget in (0.5, 0.75):
        row = rows["oracle_cross", budget]
        possible = []
        for choose_on, score_on in (halves, halves[::-1]):
            _, choices = world.brute(budget, choose_on)
            possible.append(
                {
                    round(sum(world.score(n, d, score_on) for n, d in zip(c, DOCUMENTS, strict=True)) / 5, 9)
                    for c in choices
                }
            )
        means = {round((a + b) / 2, 9) for a in possible[0] for b in possible[1]}
        assert round(row.quality.mean, 9) in means
        full = [(world.score("full", d, halves[0]) + world.score("full", d, halves[1])) / 2 for d in DOCUMENTS]
        assert row.quality.full_mean == pytest.approx(np.mean(full))
        raw = rows["oracle", budget].quality
        assert raw.mean >= row.quality.mean  # choosing by what one is scored by flatters


def test_the_honest_oracle_resamples_what_documents_share(tmp_path, monkeypatch):
    monkeypatch.setattr(aggregate, "FEWEST_DOCUMENTS", 3)
    world = World(tmp_path, references=4, seed=1)
    shared = ["a", "a", "b", "b", "c"]
    world.documents = [replace(d, source=s * 16) for d, s in zip(world.documents, shared, strict=True)]
    row = world.rows((0.75,))["oracle_cross", 0.75]
    ours = [s.score for s in read_lines(world.store.path(row.key), Sample)]
    full = [
        (world.score("full", d, slice(0, None, 2)) + world.score("full", d, slice(1, None, 2))) / 2 for d in DOCUMENTS
    ]
    by_hand = retained(ours, full, clusters=shared)
    assert row.quality.retained_ci95 == pytest.approx((by_hand.low, by_hand.high))
    alone = retained(ours, full)
    assert row.quality.retained_ci95 != pytest.approx((alone.low, alone.high))
    assert row.task.sources == 3


def test_every_candidate_is_published_with_its_score(tmp_path):
    import json

    world = World(tmp_path)
    row = world.rows((0.5,))["oracle", 0.5]
    (path,) = world.store.samples_dir.glob(f"{row.key}*candidate*")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(DOCUMENTS) * len(SETS)
    for line in lines:
        assert tuple(line["layers"]) == SETS[line["candidate"]]
        assert line["share"] == len(line["layers"]) / DEPTH
        assert line["score"] == world.score(line["candidate"], line["id"])
    again = {(line["id"], line["candidate"]): line["score"] for line in lines}
    best, choices = world.brute(0.5)  # anybody can solve it again
    assert sum(again[d, n] for n, d in zip(choices[0], DOCUMENTS, strict=True)) / 5 == pytest.approx(best)


def test_a_budget_below_the_lightest_candidate_has_no_row(tmp_path):
    rows = World(tmp_path).rows((0.2, 0.5))
    assert ("oracle", 0.2) not in rows and ("oracle", 0.5) in rows


def test_rows_have_keys_of_their_own(tmp_path):
    rows = World(tmp_path, references=4).rows((0.5, 0.75))
    assert len({r.key for r in rows.values()}) == len(rows) == 5
