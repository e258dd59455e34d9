from record_factory import TASKS, record, synthetic_run

from dlbench.leaderboard.data.tracks import build_tracks, cut_prompts


def labels(records):
    return [row.label for row in build_tracks(records)[0].rows]


def test_full_first_then_smaller_dense_then_methods_by_name_and_budget_then_oracles():
    track = build_tracks(synthetic_run(documents=10, tasks=["nano_d2t"]).records)[0]
    roles = [row.role for row in track.rows]
    assert roles == sorted(roles, key=["full", "dense", "method", "oracle"].index)
    methods = [(row.label, row.record.run.budget) for row in track.rows if row.role == "method"]
    assert methods == sorted(methods)
    assert {row.label for row in track.oracles} == {"oracle", "oracle@full", "oracle_cross"}
    assert track.first("dense").label == "nano-half"


def test_tasks_make_tracks_and_anchors_are_unique():
    tracks = build_tracks(synthetic_run(documents=10).records)
    assert [track.task.name for track in tracks] == sorted(TASKS)
    twice = [record(), record(track="nano_summary/1/routed", run={"prompt": "routed"})]
    assert [track.anchor for track in build_tracks(twice)] == ["nano-summary", "nano-summary-2"]


def test_variants_are_named_by_what_differs_not_by_the_knob():
    def router(budget, threshold, fixed):
        params = {"threshold": threshold, "fixed_input": fixed, "tau": 1.0}
        return record("hidden_router", method={"params": params, "knob": "threshold"}, run={"budget": budget})

    rows = [router(0.5, 0.1, False), router(0.5, 0.2, True), router(0.75, 0.3, False), router(0.75, 0.4, True)]
    assert labels(rows) == ["hidden_router"] * 2 + ["hidden_router · fixed_input"] * 2
    assert labels([rows[0], rows[2]]) == ["hidden_router"] * 2
    assert build_tracks(rows)[0].rows[0].setting == "threshold 0.1, tau 1"

    random = [record("random_skip", method={"params": {"per": per}}) for per in ("token", "sequence")]
    assert labels(random) == ["random_skip · sequence", "random_skip · token"]


def test_what_a_fit_has_set_names_no_variant():
    def one(seed, order, learnt):
        fit = {"seed": seed, "learnt_from": 9, "learnt": learnt}
        return record("sleb", method={"params": {"order": order, "keep": 3}}, run={"seed": seed}, fit=fit)

    (track,) = build_tracks([one(0, (1, 2), ["order"]), one(1, (2, 1), ["order"])])
    assert [row.label for row in track.rows] == ["sleb", "sleb"]
    (track,) = build_tracks([one(0, (1, 2), []), one(1, (2, 1), [])])  # given outright: two variants
    assert [row.label for row in track.rows] == ["sleb · order=1 2", "sleb · order=2 1"]


def test_fine_tuned_backbone_is_named_and_no_smaller_dense_model():
    same_depth = {"name": "nano-tuned", "sha256": "cd" * 32}
    rows = build_tracks(
        [record("full"), record("full", backbone=same_depth), record("static_skip", backbone=same_depth)]
    )
    assert [(row.label, row.role) for row in rows[0].rows] == [
        ("full", "full"),
        ("full · nano-tuned", "method"),
        ("static_skip · nano-tuned", "method"),
    ]


def test_rows_of_another_dtype_are_named_by_it_and_are_not_the_reference():
    def rows(dtype):
        return [record(name, backbone={"dtype": dtype}) for name in ("full", "static_exit")]

    both = build_tracks([*rows("int8"), *rows("float32")])[0]
    assert [(row.label, row.role) for row in both.rows] == [
        ("full", "full"),
        ("full · int8", "method"),
        ("static_exit", "method"),
        ("static_exit · int8", "method"),
    ]
    assert both.first("full").record.backbone.dtype == "float32"
    assert labels(rows("bfloat16")) == ["full", "static_exit"]  # one dtype needs no naming: the page's head has it


def test_rows_that_differ_in_their_kv_policy_only_are_named_by_it():
    def row(policy, per="token"):
        return record("random_skip", method={"params": {"per": per}}, run={"kv": policy})

    several = [row("evict"), row("project", "sequence")]
    assert labels(several) == ["random_skip · sequence", "random_skip · token"]
    assert labels([*several, row("project")]) == [
        "random_skip · sequence",
        "random_skip · token · kv=evict",
        "random_skip · token · kv=project",
    ]


def test_two_budgets_that_end_at_one_setting_stay_two_rows():
    once = record("static_exit", run={"budget": 0.5})
    twice = once.model_copy(update={"run": once.run.model_copy(update={"budget": 0.25}), "status": "unreachable"})
    rows = build_tracks([once, twice])[0].rows
    assert [row.ok for row in rows] == [False, True]
    assert len({row.anchor for row in rows}) == 2


def test_cut_prompts_are_told_once_per_task_and_backbone():
    whole, cut = record(), record(task="nano_math")
    cut = cut.model_copy(update={"task": cut.task.model_copy(update={"truncated": 3})})
    again = cut.model_copy(update={"key": "ab" * 16})
    assert cut_prompts([whole]) == []
    assert cut_prompts([cut, whole, again]) == ["nano_math on nano: 3 of 40 prompts were cut to fit the context"]
