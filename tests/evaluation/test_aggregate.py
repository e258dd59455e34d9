"""From samples to a record, by hand: shares, retained quality, status and notes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from record_samples import SHA, conditions, document, sample

from dlbench.evaluation.aggregate import Evaluation, Reference, compute, layer_share, quality, reached
from dlbench.evaluation.record import build
from dlbench.evaluation.settings import Setting
from dlbench.fit import Facts
from dlbench.methods.full import Full
from dlbench.methods.static_skip import StaticSkip
from dlbench.records.schema import Tokens

DEPTH = 4
COSTS = SimpleNamespace(dense=lambda prompt, generated: 10 * (generated - 1) + prompt)


def base(*samples):
    return Reference(DEPTH, COSTS, {s.id: s for s in samples})


def test_the_layer_share_is_a_mean_over_documents():
    samples = [sample("a", layers=(4, 4, 1)), sample("b", layers=(2,))]
    assert layer_share(samples, DEPTH) == pytest.approx((9 / 12 + 2 / 4) / 2)  # not 11/16, the mean over tokens


def test_documents_that_end_at_once_have_no_decode_share():
    samples = [sample("a", layers=(2, 2)), sample("b", layers=())]
    assert layer_share(samples, DEPTH) == 0.5
    assert layer_share(samples[1:], DEPTH) == 1.0
    full = base(sample("a", layers=(4, 4), flops=60), sample("b", layers=(), flops=0))
    both = compute(samples, full)
    assert (both.layer_share, both.flop_share_decode) == (0.5, pytest.approx(4 / 30))
    assert both.flop_share_total == pytest.approx((104 / 160 + 100 / 100) / 2)
    none = compute(samples[1:], full)
    assert (none.layer_share, none.flop_share_decode, none.flop_share_total) == (1.0, 1.0, 1.0)
    assert none.tokens.generated == 1


def test_shares_by_hand():
    """Decode against full depth of the same length; total against what full depth really wrote."""
    full = base(
        sample("a", layers=(4, 4), flops=60, prompt_flops=100), sample("b", layers=(4,), flops=40, prompt_flops=60)
    )
    cut = [
        sample("a", layers=(2, 2, 2, 2), flops=25, prompt_flops=100, executed=33),  # babbles: twice as long
        sample("b", layers=(1,), flops=5, prompt_flops=60, prompt=15, executed=7),
    ]
    found = compute(cut, full)
    assert found.layer_share == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found.flop_share_decode == pytest.approx((25 / (10 * 4 + 10) + 5 / (10 + 15)) / 2)
    assert found.flop_share_total == pytest.approx((125 / 160 + 65 / 100) / 2)
    assert (found.flops.layers, found.flops.kv, found.executed_flops) == (30, 0, 40)
    assert (found.tokens.prompt, found.tokens.generated) == (25, 7)


def test_retained_is_a_ratio_of_means():
    found = quality([0.2, 0.4, 0.1, 0.1], [0.4, 0.8, 0.2, 0.2])
    assert found.mean == pytest.approx(0.2) and found.full_mean == pytest.approx(0.4)
    assert found.retained == pytest.approx(0.5)
    assert found.retained_ci95 is None  # half in every one, but of four documents only
    scores = np.array([0.2, 0.4, 0.1, 0.1, 0.2])
    low, high = quality(scores, 2 * scores).retained_ci95
    assert low < 0.2 < 0.9 < high
    assert quality(scores, 2 * scores, clusters=("a", "a", "b", "c", "d")).retained_ci95 is None  # of four sources
    nothing = quality([0.0, 0.0], [0.0, 0.0])
    assert nothing.retained is None and nothing.retained_ci95 is None and nothing.full_mean == 0
    better = quality([0.9, 0.7, 0.8, 0.6, 0.5], [0.4, 0.8, 0.5, 0.6, 0.4])
    assert better.retained == pytest.approx(3.5 / 2.7)
    assert better.retained_ci95[0] < 3.5 / 2.7 < better.retained_ci95[1]


@pytest.mark.parametrize(
    ("share", "budget", "depth", "yes"),
    [
        (0.5, 0.5, 16, True),
        (0.53, 0.5, 16, True),
        (0.4688, 0.5, 16, True),  # half a layer of 16 is 0.03125
        (0.468, 0.5, 16, False),
        (0.6, 0.5, 4, True),
        (0.63, 0.5, 4, False),
        (0.53, 0.5, 100, True),
        (0.531, 0.5, 100, False),
    ],
)
def test_a_budget_is_reached_within_three_points_or_half_a_layer(share, budget, depth, yes):
    assert reached(share, budget, depth) == yes


def made(samples, full=None, *, method=None, budget=0.5, name="static_skip", fit=None, **more):
    method = method or StaticSkip()
    setting = Setting(name, name, method, budget, key="0" * 32, fit=fit)
    documents = [document(s.id) for s in samples]
    evaluation = Evaluation(conditions(), documents, base(*(full or samples)), {"device": "cpu"})
    return build(evaluation, setting, samples, **more)


def test_a_record_says_what_ran():
    full = [sample("a", 0.8, (4, 4)), sample("b", 0.6, (4, 4))]
    record = made(
        [sample("a", 0.4, (2, 2), scores={"chrf": 30.0}), sample("b", 0.3, (2, 2), scores={"chrf": 50.0})], full
    )
    assert record.status == "ok" and record.notes == ()
    assert record.method.name == "static_skip" and record.method.knob == "share" and record.method.deployable
    assert record.method.params == {"share": 0.5, "only": ()} and record.method.source_sha256 != SHA
    assert (record.run.budget, record.run.prompt, record.run.kv) == (0.5, "full", "project")
    assert (record.task.name, record.task.n, record.task.metric) == ("toy", 2, "match")
    assert (record.backbone.family, record.backbone.layers, record.backbone.base_sha256) == ("llama", 4, SHA)
    assert record.quality.mean == pytest.approx(0.35) and record.quality.full_mean == pytest.approx(0.7)
    assert record.quality.retained == pytest.approx(0.5)
    assert record.quality.extra == {
        "chrf": 40.0, "worst_decile": 0.3, "length_ratio_full": 1, "length_ratio_reference": 1, "repetition": 0,
    }  # fmt: skip
    assert (record.task.fit_split, record.task.signature, record.task.chance) == ("train", "match: by a table", 0)
    assert record.env["device"] == "cpu" and "torch" in record.env
    assert type(record).model_validate_json(record.model_dump_json(by_alias=True)) == record


def test_lengths_are_compared_without_what_ends_a_text():
    full, written = sample("a", output="four"), sample("a", output="eightlet|and on")
    setting = Setting("static_skip", "static_skip", StaticSkip(), None, key="0" * 32)
    stopped = replace(document("a", ["ab", "abcdefghijkl"]), stop=("|",))
    found = build(Evaluation(conditions(), [stopped], base(full)), setting, [written]).quality.extra
    assert found["length_ratio_full"] == 2 and found["length_ratio_reference"] == pytest.approx(8 / 12)


def test_what_is_kept_is_above_chance():
    found = quality([0.5, 0.5, 0.0, 1.0] * 20, [1.0, 1.0, 0.0, 1.0] * 20, chance=0.25)
    assert found.retained == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    assert quality([1.0, 0.0], [0.5, 0.0], chance=0.25).retained is None


def test_weighed_answers_are_held_against_what_full_depth_ran():
    full = [sample("a", layers=(4, 4), flops=80, prompt_flops=0, prompt=20)]
    half = [sample("a", layers=(2, 2), flops=44, prompt_flops=0, prompt=20)]
    full, half = ([s.model_copy(update={"tokens": Tokens(prompt=20, generated=0)}) for s in x] for x in (full, half))
    found = compute(half, base(*full))
    assert (found.layer_share, found.flop_share_decode, found.flop_share_total) == (0.5, 0.55, 0.55)
    assert found.tokens.generated == 0


def test_a_budget_that_is_missed_is_a_row_and_says_so():
    record = made([sample("a", layers=(4, 3))], budget=0.5)
    assert record.status == "unreachable"
    assert record.notes == ("the closest setting runs 0.875 of the layers",)
    assert record.quality is not None
    facts = Facts("static_skip", "toy", 0, budget=0.5, realised=0.52)
    tuned = made([sample("a", layers=(4, 3))], budget=0.5, fit=facts)
    assert tuned.status == "unreachable"
    assert tuned.notes == ("tuned to 0.520 of the layers on other documents, runs 0.875 of them here",)
    far = made([sample("a", layers=(4, 3))], budget=0.5, fit=replace(facts, realised=0.9))
    assert far.notes == ("the closest setting runs 0.875 of the layers",)


def test_a_method_that_never_acted_says_so():
    idle = made([sample("a", layers=(4, 4))], budget=1.0)
    assert idle.notes == ("never acted: every token ran every layer",) and idle.status == "ok"
    assert made([sample("a", layers=(4, 4))], method=Full(), budget=None, name="full").notes == ()
    assert made([sample("a", layers=(4, 4)), sample("b", layers=(4, 2))], budget=0.9).notes == ()


def test_truncated_prompts_are_counted():
    samples = [sample("a", truncated=True), sample("b"), sample("c", truncated=True)]
    record = made(samples, budget=None)
    assert record.notes == ("2 of 3 prompts were cut to fit the context",) and record.task.truncated == 2
    assert made(samples[1:2]).task.truncated == 0


def test_an_oracle_spends_up_to_its_budget():
    record = made([sample("a", layers=(1, 1))], budget=0.75, kind="oracle", params={"candidates": 3})
    assert record.status == "ok" and not record.method.deployable
    assert record.method.knob is None and record.method.params == {"candidates": 3}


def test_a_run_of_texts_that_all_end_at_once_is_a_record():
    record = made([sample("a", layers=()), sample("b", layers=())], budget=None)
    assert record.compute.layer_share == 1.0 and record.compute.flop_share_total == 1.0
