"""The figures of a board worked out again from its records, times and scores, by docs/statistics.md; json and numpy.

For records of one fit seed whose documents share no source, as those that this repository publishes are.
"""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import plain_intervals as intervals

CONTROLS = ("random_skip", "unified_skip")
NEAR = 0.03  # what no method meets exactly: a mark, or the end of a control's curve
RERUN = ("rerun", "reproduced")


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Folder:
    """A folder of published records."""

    def __init__(self, path):
        self.records = {one["key"]: one for one in lines(path / "records.jsonl")}
        self.scores = {one["key"]: one["scores"] for one in lines(path / "scores.jsonl")}
        self.times = {(one["key"], one["batch_size"]): one for one in lines(path / "timing.jsonl")}
        for one in self.records.values():
            assert one["run"]["seed"] == 0 and not one["task"]["sources"] and one["trust"] not in RERUN
        machines = Counter((one["device"], one["threads"], one.get("machine")) for one in self.times.values())
        assert len(machines) == 1

    def full(self, track):
        """Return the record of a track's base at full depth."""
        (key,) = [
            key
            for key, one in self.records.items()
            if one["track"] == track
            and one["method"]["name"] == "full"
            and one["backbone"]["sha256"] == one["backbone"]["base_sha256"]
        ]
        return key


@dataclass
class Setting:
    """One method at one budget: its records by track, and what they cost and score."""

    records: list
    scores: np.ndarray  # shares of full depth's quality, every task weighing the same
    costs: dict
    label: str
    budget: float | None

    @property
    def kind(self):
        method, backbone = self.records[0]["method"], self.records[0]["backbone"]
        if not method["deployable"]:
            return "oracle"
        if method["name"] == "full":
            return "full" if backbone["sha256"] == backbone["base_sha256"] else "dense"
        fixed = method["params"].get("fixed_input") is True
        return "control" if method["name"] in CONTROLS or method["kind"] == "control" or fixed else "method"

    @property
    def ok(self):
        return all(one["status"] == "ok" and not one.get("withdrawn") for one in self.records)

    @property
    def kept(self):
        return self.scores.mean()


class View:
    """A page: one task, or several together.

    Args:
        folder: its records.
        tracks: its tracks.
        groups: label, budget and keys of the records of each setting, all of its tasks.
    """

    def __init__(self, folder, tracks, groups):
        self.folder, self.tracks = folder, tracks
        self.full_keys = {track: folder.full(track) for track in tracks}
        self.ids = {track: sorted(folder.scores[key]) for track, key in self.full_keys.items()}
        self.settings = [self._setting(*group) for group in groups]
        (self.full,) = [one for one in self.settings if one.kind == "full"]
        self._kept, self._places = {}, {}  # what several axes show is worked out once

    def _setting(self, label, budget, keys):
        by_track = {self.folder.records[key]["track"]: key for key in keys}
        assert set(by_track) == set(self.tracks), label
        total = sum(map(len, self.ids.values()))
        parts = []
        for track in self.tracks:
            key, chance = by_track[track], self.folder.records[by_track[track]]["task"]["chance"]
            scores = np.array([self.folder.scores[key][one] for one in self.ids[track]])
            own = self.folder.records[key]["quality"]["full_mean"]  # an honest oracle's references are others
            of_full = np.mean(list(self.folder.scores[self.full_keys[track]].values()))
            whole = own if self.folder.records[key]["method"]["name"] == "oracle_cross" else of_full
            weight = total / (len(self.tracks) * len(scores))
            parts.append(weight * (scores - chance) / (whole - chance))
        records = [self.folder.records[by_track[track]] for track in self.tracks]
        return Setting(records, np.concatenate(parts), self._costs(by_track), label, budget)

    def _costs(self, by_track):
        computed = [self.folder.records[key]["compute"] for key in by_track.values()]
        costs = {
            axis: np.mean([one[name] for one in computed])
            for axis, name in (
                ("layers", "layer_share"),
                ("decode", "flop_share_decode"),
                ("total", "flop_share_total"),
            )
        }
        for batch in {batch for _, batch in self.folder.times}:
            pairs = [
                (self.folder.times.get((key, batch)), self.folder.times.get((self.full_keys[track], batch)))
                for track, key in by_track.items()
            ]
            if all(own and of_full for own, of_full in pairs):
                costs[f"token{batch}"] = np.exp(np.mean([-np.log(own["speedup"]) for own, _ in pairs]))
                shares = []
                for own, of_full in pairs:
                    steps = (own["ms_per_document"] - own["prefill_ms_per_document"]) / own["decode_ms_per_token"]
                    decoding = steps * of_full["decode_ms_per_token"] / own["speedup"]
                    shares.append((decoding + own["prefill_ms_per_document"]) / of_full["ms_per_document"])
                costs[f"document{batch}"] = np.exp(np.mean(np.log(shares)))
        return costs

    # ---- what is kept

    @cached_property
    def metric_top(self):
        """The greatest score that the metric of a single task allows."""
        every = [max(self.folder.scores[one["key"]].values()) for two in self.settings for one in two.records]
        top = max(every)
        return 1.0 if top <= 1 else 100.0 if 50 < top <= 100 else top

    def limits(self, *rows):
        """Return the least and the greatest share that there can be."""
        most = max(row.max() for row in rows)
        if len(self.tracks) > 1:
            return min(0.0, *(row.min() for row in rows)), most
        task = self.full.records[0]["task"]
        scale = self.full.records[0]["quality"]["mean"] - task["chance"]
        ends = ((0 - task["chance"]) / scale, (self.metric_top - task["chance"]) / scale)
        return min(ends[0], *(row.min() for row in rows)), max(ends[1], most)

    def binary(self, *rows):
        ends = self.limits(*rows)
        return all(np.isin(row, ends).all() for row in rows)

    def kept(self, setting):
        """Return what a setting keeps of full depth, with its interval."""
        if setting is self.full:
            return intervals.Ends(1.0, 1.0, 1.0)
        if setting.records[0]["method"]["name"] == "oracle_cross":
            return None  # full depth's scores under the references that this oracle left out are not published
        if id(setting) not in self._kept:
            # of several tasks no metric says what the greatest share is: it is the greatest that any row has
            every = [one.scores for one in self.settings] if len(self.tracks) > 1 else []
            self._kept[id(setting)] = self.kept_of(setting.scores, every)
        return self._kept[id(setting)]

    def kept_of(self, row, others=()):
        ends = self.limits(row, self.full.scores, *others)
        whole = len(self.tracks) == 1 and self.binary(row, self.full.scores)
        return intervals.of_ratio(row, self.full.scores, ends, ends, binary=whole)

    # ---- at one cost

    def by_label(self, kind, axis=None):
        methods = defaultdict(list)
        for one in self.settings:
            if one.kind == kind and (axis is None or (one.ok and axis in one.costs)):
                methods[one.label].append(one)
        return methods

    def mark(self, axis):
        """Return the cost at which methods are shown, and by label of method or control the setting shown there.

        Where no method is as cheap as full depth, nothing is shown: None, and no settings.
        """
        methods = self.by_label("method", axis)
        costs = [one.costs[axis] for several in methods.values() for one in several]
        for mark in (0.5, min(1.0, round(float(np.median(costs)), 2))):
            chosen = _dearest(methods, axis, mark)
            if 2 * len(chosen) >= len(methods):
                break
        if not chosen:
            return None, {}, {}
        return mark, chosen, _dearest(self.by_label("control", axis), axis, mark)

    def places(self, settings):
        """Return per setting the rank, and the interval of ranks as (surely at least, at most) of either end.

        Where a pair lies so near the critical value that other draws may decide otherwise, the two differ.
        """
        which = tuple(map(id, settings))
        if which not in self._places:
            self._places[which] = self._places_of(np.stack([one.scores for one in settings]))
        return self._places[which]

    def _places_of(self, rows):
        count, documents = rows.shape
        assert documents > 50
        if count == 1:
            return [(1, (1, 1), (1, 1))]
        critical, errors = intervals.joint_critical(rows)
        ends = self.limits(*rows)
        span = ends[1] - ends[0]
        few = 1 + np.log2(count * (count - 1) / 2 / 0.05)
        surely, perhaps = np.zeros((count, count), bool), np.zeros((count, count), bool)
        for one, other in combinations(range(count), 2):
            differs = rows[one] - rows[other]
            if np.count_nonzero(np.abs(differs) > 1e-12) < few:
                continue
            found = intervals.of_mean(differs, -span, span, binary=self.binary(rows[one], rows[other]))
            better, worse = (one, other) if found.estimate > 0 else (other, one)
            nearest = found.low if found.estimate > 0 else -found.high
            slack = 0.08 * (abs(found.estimate) - nearest)
            away = abs(found.estimate) / max(errors[one, other], 1e-300)
            surely[better, worse] = away > 1.04 * critical and nearest > slack
            perhaps[better, worse] = away > 0.96 * critical and nearest > -slack
        means = rows.mean(axis=1)
        return [
            (
                1 + int((means > means[row] + 1e-12).sum()),
                (1 + int(surely[:, row].sum()), 1 + int(perhaps[:, row].sum())),
                (count - int(perhaps[row].sum()), count - int(surely[row].sum())),
            )
            for row in range(count)
        ]

    # ---- enough

    def enough(self, settings, axis, confidence=0.95):
        """Return the costs that may be the cheapest that surely keeps 95 %; infinite where none does.

        Settings are tested from the dearest down. More than one cost where a bound is so near 0 that other draws may
        decide otherwise.
        """
        found, last = set(), np.inf
        for cost in sorted({one.costs[axis] for one in settings}, reverse=True):
            margins = [self._margin(one.scores, confidence) for one in settings if one.costs[axis] == cost]
            if any(low < -slack for low, slack in margins):
                return found | {last}
            if any(low < slack for low, slack in margins):
                found.add(last)
            last = cost
        return found | {last}

    def _margin(self, scores, confidence):
        """Return the one-sided bound of mean(q − 0.95 full), and how far other draws may move it."""
        low, high = self.limits(scores, self.full.scores)
        values = scores - 0.95 * self.full.scores
        found = intervals.of_mean(
            values,
            low - 0.95 * high,
            high - 0.95 * low,
            binary=self.binary(scores, self.full.scores),
            level=2 * confidence - 1,
        )
        return found.low, 0.08 * (found.estimate - found.low)

    # ---- over all budgets

    def areas(self):
        """Return by label the row of mean heights over the decoding FLOPs that all curves cover."""
        budgets = {one.budget for one in self.settings if one.kind in ("method", "control")}
        methods = {**self.by_label("method", "decode"), **self.by_label("control", "decode")}
        curves = {
            label: sorted(several, key=lambda one: one.costs["decode"])
            for label, several in methods.items()
            if {one.budget for one in several} >= budgets and min(one.costs["decode"] for one in several) < 1
        }
        low = max((curve[0].costs["decode"] for curve in curves.values()), default=1.0)
        high = min((curve[-1].costs["decode"] for curve in curves.values()), default=0.0)
        return {label: _height(curve, low, high) for label, curve in curves.items()} if low < high else {}

    # ---- the gap closed

    def gap(self, setting, level=0.95):
        """Return (method − random) ÷ (honest oracle − random) at the setting's layer share; None where undefined."""
        random = [one for one in self.settings if one.records[0]["method"]["name"] == "random_skip" and one.ok]
        token = [one for one in random if one.records[0]["method"]["scope"] == "token"]
        oracle = [one for one in self.settings if one.records[0]["method"]["name"] == "oracle_cross" and one.ok]
        if not setting.ok or setting.budget is None or not token or not oracle or setting in token:
            return None
        floor, roof = (_at_share(curve, setting.costs["layers"]) for curve in (token, oracle))
        if floor is None or roof is None:
            return None
        low, high = self.limits(setting.scores, floor, roof)
        if intervals.of_mean(roof - floor, low - high, high - low).low <= 0:
            return None
        top, gap = setting.scores - floor, roof - floor
        return intervals.of_ratio(top, gap, (low - floor, high - floor), (low - high, high - low), level=level)


def _dearest(methods, axis, mark):
    within = {label: [one for one in several if one.costs[axis] <= mark + NEAR] for label, several in methods.items()}
    return {label: max(several, key=lambda one: one.costs[axis]) for label, several in within.items() if several}


def _height(curve, low, high):
    costs = np.array([one.costs["decode"] for one in curve])
    rows = np.stack([one.scores for one in curve])
    corners = np.unique(np.r_[low, costs[(costs > low) & (costs < high)], high])
    lines_ = np.stack([np.interp(corners, costs, column) for column in rows.T])
    return ((lines_[:, 1:] + lines_[:, :-1]) / 2 * np.diff(corners)).sum(axis=1) / (high - low)


def _at_share(curve, share):
    """Return the scores by document at a layer share, on the straight lines between settings; None beyond the ends."""
    ordered = sorted(curve, key=lambda one: one.costs["layers"])
    costs = np.array([one.costs["layers"] for one in ordered])
    if not costs[0] - NEAR <= share <= costs[-1] + NEAR:
        return None
    return np.array([np.interp(share, costs, column) for column in np.stack([one.scores for one in ordered]).T])
