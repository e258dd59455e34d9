import numpy as np
import pytest
from record_factory import record, sha, synthetic_run

from dlbench.leaderboard.analysis.view_stats import standings
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views
from dlbench.records.schema import Timing

FULL = np.full(10, 0.8)


def row(name, kept, task="nano_math", **more):
    return record(name, task=task, scores=kept * FULL, full=FULL, **({"track": f"{task}/1"} | more))


def timing(made, batch, ms, device="cpu", **more):
    parts = dict(threads=2, prefill_ms_per_document=1.0, spread=0.1, repeats=3, speedup=10.0 / ms)
    return Timing(
        key=made.key,
        method=made.method.name,
        task=made.task.name,
        budget=made.run.budget,
        batch_size=batch,
        device=device,
        decode_ms_per_token=ms,
        ms_per_document=50 * ms,
        **(parts | more),
    )


def test_several_tasks_are_averaged_every_task_counting_the_same():
    rows = [
        row("static_skip", 0.5, compute={"flop_share_total": 0.6}),
        row("static_skip", 0.9, "nano_summary", compute={"flop_share_total": 0.8}),
        row("full", 1.0, run={"budget": None}),
        row("full", 1.0, "nano_summary", run={"budget": None}),
        row("static_exit", 0.4),
    ]
    suite, first, second = build_views(build_tracks(rows))
    assert suite.suite and suite.title == "all tasks" and suite.backbone == "nano"
    assert [view.title for view in (first, second)] == ["nano_math", "nano_summary"]
    (skip,) = [entry for entry in suite.entries if entry.label == "static_skip"]
    assert skip.retained == pytest.approx(0.7)
    assert skip.costs["total"] == pytest.approx(0.7)
    assert skip.score is None and skip.bounds is None
    assert suite.missing == (("static_exit", 1),)


def test_one_task_has_no_view_of_several_and_backbones_stand_apart():
    other = {"name": "big", "sha256": sha("big"), "base_sha256": sha("big")}
    views = build_views(build_tracks([row("full", 1.0), row("full", 1.0, track="x/1", backbone=other)]))
    assert [(view.backbone, view.suite) for view in views] == [("big", False), ("nano", False)]
    assert len({view.slug for view in views}) == 2


def test_rows_that_differ_in_their_seed_alone_are_repeats_of_one_entry():
    rows = [row("hidden_router", kept, run={"seed": seed}) for seed, kept in enumerate((0.5, 0.6, 0.7))]
    (entry,) = build_views(build_tracks(rows))[0].entries
    assert entry.repeats == 3
    assert entry.retained == pytest.approx(0.6)
    assert entry.bounds is None  # the records know of one seed each


def test_rows_of_one_seed_are_no_repeats():
    rows = [row("hidden_router", 0.5, method={"source_sha256": sha(text)}) for text in ("old", "new")]
    view = build_views(build_tracks(rows))[0]
    assert len(view.entries) == 2 and len({entry.id for entry in view.entries}) == 2
    settings = [{"params": {"share": share}, "knob": "share"} for share in (0.3, 0.4)]
    tuned = [row("static_skip", 0.5, method=setting, run={"budget": None}) for setting in settings]
    assert len(build_views(build_tracks(tuned))[0].entries) == 2


def test_an_entry_is_trusted_as_far_as_its_least_trusted_row():
    rows = [row("static_skip", 0.5, trust="rerun"), row("static_skip", 0.5, "nano_summary", trust="validated")]
    suite, first, second = build_views(build_tracks(rows))
    assert [view.entries[0].trust for view in (suite, first, second)] == ["validated", "rerun", "validated"]


def test_times_of_one_machine_stand_together():
    full, skip = row("full", 1.0, run={"budget": None}), row("static_skip", 0.5)
    clocks = [timing(full, 1, 10.0), timing(skip, 1, 5.0), timing(skip, 16, 2.0), timing(full, 1, 1.0, device="cuda")]
    (view,) = build_views(build_tracks([full, skip], clocks))
    by_label = {entry.label: entry for entry in view.entries}
    assert by_label["full"].times[1].ms_per_token == 10.0
    skip = by_label["static_skip"]
    assert skip.costs["token16"] == pytest.approx(0.2) and "document16" not in skip.costs  # full was not timed there
    # 49.8 forwards of half of full's time, and a prompt, of full's 50 forwards.
    assert skip.costs["document1"] == pytest.approx((49.8 * 10.0 * 0.5 + 1.0) / 500)
    # One row alone is nothing to compare: the axis is not offered.
    assert [axis.key for axis in view.axes] == ["layers", "decode", "total", "token1", "document1"]


def test_speedups_of_several_tasks_are_averaged_as_factors():
    rows = [row("static_skip", 0.5), row("static_skip", 0.5, "nano_summary")]
    clocks = [timing(rows[0], 1, 5.0, speedup=4.0), timing(rows[1], 1, 7.0, speedup=1.0)]
    suite = build_views(build_tracks(rows, clocks))[0]
    assert suite.entries[0].times[1].speedup == pytest.approx(2.0)
    assert suite.entries[0].times[1].ms_per_token == pytest.approx(6.0)


def test_the_time_axis_holds_the_paired_share_and_not_milliseconds_of_other_moments():
    """On a machine that slowed down in between, milliseconds and the share of full's time disagree."""
    full, skip = row("full", 1.0, run={"budget": None}), row("static_skip", 0.5)
    clocks = [timing(full, 1, 10.0), timing(skip, 1, 12.0, speedup=2.0, speedup_spread=0.1)]
    (view,) = build_views(build_tracks([full, skip], clocks))
    skipped = next(entry for entry in view.entries if entry.label == "static_skip")
    assert skipped.costs["token1"] == 0.5
    assert (skipped.times[1].ms_per_token, skipped.times[1].spread) == (12.0, 0.1)


def test_anchors_are_readable_unique_and_fit_for_an_address():
    view = build_views(build_tracks(synthetic_run(documents=4, tasks=["nano_math"]).records))[0]
    ids = [entry.id for entry in view.entries]
    assert len(ids) == len(set(ids))
    assert {"full", "nano-half", "static-skip-50", "hidden-router-fixed-input-25", "oracle-full-100"} <= set(ids)
    (foreign,) = build_views(build_tracks([row("深度", 0.5)]))[0].entries
    assert foreign.id == f"{foreign.first.record.key[:10]}-50"


def test_a_hundredth_of_cost_does_not_put_a_worse_row_on_the_front():
    """As on the public board: the learned constant, a tenth of a point cheaper than the router that beats it."""
    settings = (("full", 1.0, 1.0), ("static_skip", 0.628, 0.826), ("static_exit", 0.801, 0.827), ("calm", 0.6, 0.7))
    rows = [
        row(name, kept, run={"budget": None if name == "full" else 0.5}, compute={"flop_share_total": cost})
        for name, kept, cost in settings
    ]
    (view,) = build_views(build_tracks(rows))
    scores = {
        one.key: {str(place): float(score) for place, score in enumerate(kept * FULL)}
        for one, (_, kept, _) in zip(rows, settings, strict=True)
    }
    fronts = standings(view, scores).fronts
    by_label = {entry.label: fronts[entry.id] for entry in view.entries}
    assert by_label["static_skip"] == (False, 0.0)
    assert [by_label[label][0] for label in ("full", "static_exit", "calm")] == [True, True, True]


@pytest.mark.parametrize(
    ("sizes", "versions", "titles"),
    [
        ((10, 12), "12", ["nano_math, 10 documents", "nano_math, 12 documents"]),
        ((10, 10), "12", ["nano_math, version 1", "nano_math, version 2"]),
        ((10, 10), "11", ["nano_math, track 1", "nano_math, track 2"]),
    ],
)
def test_tracks_of_one_task_have_titles_that_tell_them_apart(sizes, versions, titles):
    made = [
        record("static_skip", task="nano_math", scores=np.full(n, 0.5), track=f"track {k}") for k, n in enumerate(sizes)
    ]
    rows = [
        one.model_copy(update={"task": one.task.model_copy(update={"version": version})})
        for one, version in zip(made, versions, strict=True)
    ]
    views = [view for view in build_views(build_tracks(rows)) if not view.suite]
    assert [view.title for view in views] == titles


def test_two_models_of_one_folder_name_are_told_apart():
    """Two bases called "m", and one of that name that was trained from the first."""
    hashes = {name: sha(name) for name in ("one", "other", "trained")}

    def of(model, base, track, **more):
        named = {"name": "m", "sha256": hashes[model], "base_sha256": hashes[base]}
        return row(more.pop("name", "full"), 1.0, track=track, backbone=named, run={"budget": None}, **more)

    made = [of("one", "one", "a"), of("other", "other", "b"), of("trained", "one", "a")]
    shown = {model: f"m ({hashes[model][:8]})" for model in hashes}
    tracks = build_tracks(made)
    assert {row.model for track in tracks for row in track.rows} == set(shown.values())
    assert sorted(view.backbone for view in build_views(tracks)) == sorted([shown["one"], shown["other"]])
    (first, _) = tracks
    assert [row.label for row in first.rows] == ["full", f"full · {shown['trained']}"]
    alone = build_tracks([of("one", "one", "a"), of("one", "one", "b", task="nano_summary")])
    assert {row.model for track in alone for row in track.rows} == {"m"}


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_memory_of_a_gpu_and_energy_are_cost_axes_where_every_row_has_them(device):
    full, half, other = row("full", 1.0, run={"budget": None}), row("static_skip", 0.9), row("static_exit", 0.8)
    made = [
        timing(full, 1, 10.0, device, peak_bytes=1000, joules_per_token=0.4),
        timing(half, 1, 5.0, device, peak_bytes=800, joules_per_token=0.1),
        timing(other, 1, 5.0, device),
    ]
    (view,) = build_views(build_tracks([full, half, other], made))
    costs = {entry.method: entry.costs for entry in view.entries}
    assert costs["static_skip"]["energy1"] == pytest.approx(0.25) and costs["full"]["energy1"] == pytest.approx(1)
    assert costs["static_skip"].get("memory1") == (pytest.approx(0.8) if device == "cuda" else None)
    assert not {"energy1", "memory1"} & costs["static_exit"].keys()
    shown = {axis.key for axis in view.axes}
    assert "energy1" in shown and ("memory1" in shown) == (device == "cuda")
