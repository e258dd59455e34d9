"""Whatever is changed in a submission, the validator does not crash, and no changed figure passes."""

import contextlib
import json
import math
import random
import shutil

import packed_run
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlbench.submission.manifest import FILE
from dlbench.submission.validation import validate


def codes(folder):
    return validate(folder, rules="consistent").faults.codes


# Hypothesis: the folder is made once and put back after every example.
HARD = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIGURES = {
    *("score", "scores", "layers", "routes", "attention", "heads", "prompt_flops", "mean", "retained", "full_mean"),
    *("layer_share", "flop_share_decode", "flop_share_total", "params", "version", "key", "track", "id", "trust"),
    *("sha256", "source_sha256", "base_sha256", "deployable", "status", "n", "metric", "seed", "prompt", "generated"),
}
"""Fields that follow from others, or are fixed: no other value of them passes."""


@pytest.fixture(scope="module")
def shared(packed, tmp_path_factory):
    return packed_run.Tampering(shutil.copytree(packed, tmp_path_factory.mktemp("shared") / "submission"))


@pytest.fixture
def restored(packed, shared):
    """Put back every file that an example has changed."""

    def restore():
        for path in packed.rglob("*"):
            if path.is_file():
                shutil.copyfile(path, shared.folder / path.relative_to(packed))

    return restore


@HARD
@given(st.data())
def test_changed_bytes_never_pass(shared, restored, data):
    restored()
    files = sorted(p for p in shared.folder.rglob("*") if p.is_file())
    path = data.draw(st.sampled_from(files))
    raw = path.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    piece = data.draw(st.binary(max_size=8))
    changed = raw[:at] + piece + raw[at + data.draw(st.integers(0, 8)) :]
    path.write_bytes(changed)
    found = codes(shared.folder)
    assert "check-failed" not in found
    assert bool(found) == (changed != raw)


@HARD
@given(st.data(), st.integers(0, 2**32))
def test_changed_values_never_crash_and_no_changed_figure_passes(shared, restored, data, seed):
    """Any value of any object is replaced by any other, and the hashes are made to fit again."""
    restored()
    draw = random.Random(seed)
    files = [FILE, "records.jsonl", "timing.jsonl", "documents.jsonl", *_of(shared, "samples"), *_of(shared, "fits")]
    name = draw.choice(files)
    path, value = shared.folder / name, data.draw(JSON)
    whole = name == FILE or name.endswith("fit.json")
    objects = [json.loads(path.read_text())] if whole else [json.loads(x) for x in path.read_text().splitlines()]
    field, changed = _replace(draw.choice(objects), value, draw)
    path.write_text(json.dumps(objects[0]) if whole else "".join(json.dumps(one) + "\n" for one in objects))
    with contextlib.suppress(AttributeError, TypeError, KeyError, ValueError):
        shared.seal()  # a manifest may be too damaged for it
    found = codes(shared.folder)
    assert "check-failed" not in found
    is_claim = name == "records.jsonl" or name.startswith("samples/")
    if is_claim and changed and field in FIGURES:
        assert found, (name, field, value)


def _of(shared, folder):
    paths = (shared.folder / folder).rglob("*.json*")
    return sorted(p.relative_to(shared.folder).as_posix() for p in paths)


def _replace(content, value, draw):
    """Replace a value somewhere inside; return its field, and whether it is another now."""
    field, place, part = "", content, None
    while True:
        inner = list(place) if isinstance(place, dict) else list(range(len(place)))
        part = draw.choice(inner)
        field = part if isinstance(part, str) else field
        if not (isinstance(place[part], (dict, list)) and place[part] and draw.random() < 0.7):
            break
        place = place[part]
    before, place[part] = place[part], value
    numbers = all(isinstance(one, (int, float)) for one in (before, value))
    return field, not math.isclose(before, value, abs_tol=1e-6) if numbers else before != value
