"""Ways to tamper with a submission, and the code that each is rejected with."""

import json
import os
import re
import shutil
import zipfile

from dlbench.submission.manifest import FILE


def put(*path, value):
    """An edit that sets a value deep in an object."""

    def edit(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value(content[path[-1]]) if callable(value) else value

    return edit


def put_new(name, value):
    return lambda content: content.update({name: value})


def sample(*path, value, method="bumpy"):
    return lambda t: t.sample(method, put(*path, value=value))


def record(*path, value, method="bumpy"):
    return lambda t: t.record(method, put(*path, value=value))


def manifest(*path, value):
    return lambda t: t.manifest(put(*path, value=value))


def row(*path, value, method="bumpy"):
    """An edit of the manifest's entry of a row."""
    return lambda t: t.manifest(lambda m: put(*path, value=value)(m["rows"][t.key(method)]))


def samples(edit, method="bumpy"):
    return lambda t: t.samples(method, edit)


def times(edit):
    return lambda t: t.lines("timing.jsonl", edit)


def fit_of(t):
    """The folder of the router's fit."""
    return t.folder / json.loads((t.folder / FILE).read_text())["rows"][t.key("hidden_router")]["fit"]


def other_weights(t):
    path = fit_of(t) / "weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def short_weights(t):
    path = fit_of(t) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def text(name, edit):
    """An edit of a file as bytes."""
    return lambda t: (t.folder / name).write_bytes(edit((t.folder / name).read_bytes()))


def first_route(route):
    """Another route of the same length."""
    (first, times_), *others = route
    return [["3" * len(first) if "0" in first else "0" + first[1:], times_], *others]


def bomb(t):
    path = t.folder / "code" / "bumpy" / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))


def of_another_protocol(t):
    t.renamed("bumpy", lambda r, content: content.update(protocol=2))


def claims_oracle(r):
    r["method"].update(deployable=False, kind="oracle")


def two_keys(raw):
    return raw.replace(b'{"', b'{"id":"x","', 1)


def twice(all_):
    return [*all_, all_[-1]]


FORGED = {
    "a score is raised": ("score-differs", sample("score", value=1.0)),
    "a score is beyond all metrics": ("score-differs", sample("score", value=155613875.0)),
    "a score of full depth is beyond all floats": ("score-differs", sample("score", value=1e308, method="full")),
    "another metric is raised": ("score-differs", sample("scores", value=lambda s: {**s, "more": 1.0})),
    "an output is replaced": ("score-differs", sample("output", value="Ein Hund läuft über die Wiese.")),
    "a sample is dropped": ("samples-missing", samples(lambda all_: all_[1:])),
    "a sample is added": ("sample-unknown", samples(lambda all_: [*all_, {**all_[0], "id": "new"}])),
    "a sample stands twice": ("sample-twice", samples(twice)),
    "two samples are swapped": ("sample-order", samples(lambda all_: [all_[1], all_[0], *all_[2:]])),
    "the prompt was another": ("prompt-differs", sample("tokens", "prompt", value=lambda n: n + 1)),
    "a route is edited": ("flops-layers", sample("routes", value=first_route)),
    "routes are left out": ("routes-shape", sample("routes", value=[])),
    "layers are lowered": ("layers-differ", sample("layers", value=lambda all_: [n / 2 for n in all_])),
    "a token is free": ("tokens-forwards", sample("tokens", "generated", value=lambda n: n + 3)),
    "FLOPs of layers are lowered": ("flops-layers", sample("flops", "layers", value=lambda n: n - 1)),
    "FLOPs of attention are lowered": ("flops-attention", sample("flops", "attention", value=lambda n: n - 1)),
    "FLOPs of heads are dropped": ("flops-heads", sample("flops", "heads", value=0)),
    "FLOPs of keys are absurd": ("flops-kv", sample("flops", "kv", value=10**12)),
    "FLOPs of the prompt are lowered": ("flops-prompt", sample("prompt_flops", value=lambda n: n - 1)),
    "fewer are executed than credited": ("flops-executed", sample("executed_flops", value=1)),
    "full depth skips": ("full-skips", sample("routes", value=first_route, method="full")),
    "full depth is dropped": (
        "full-missing",
        lambda t: t.lines("records.jsonl", lambda a: [r for r in a if r["method"]["name"] != "full"]),
    ),
    "a layer share is lowered": ("share-layer", record("compute", "layer_share", value=0.3)),
    "a decode share is lowered": ("share-decode", record("compute", "flop_share_decode", value=0.3)),
    "a total share is lowered": ("share-total", record("compute", "flop_share_total", value=0.3)),
    "sums are lowered": ("compute-sums", record("compute", "tokens", "generated", value=1)),
    "the mean is raised": ("quality-differs", record("quality", "mean", value=0.99)),
    "what is retained is raised": ("quality-differs", record("quality", "retained", value=0.99)),
    "a budget is claimed": ("status", record("status", value="unreachable")),
    "a row stands twice": ("record-twice", lambda t: t.lines("records.jsonl", twice)),
    "no row is left": ("no-records", lambda t: t.lines("records.jsonl", lambda a: a.clear())),
    "an oracle is among the rows": ("oracle-row", lambda t: t.record("bumpy", claims_oracle)),
    "a score elsewhere is claimed": (
        "beyond-samples",
        lambda t: t.record("bumpy", put_new("tune", {"n": 9, "mean": 1.0})),
    ),
    "trust is claimed": ("trust-claimed", record("trust", value="reproduced")),
    "a parameter is edited": ("content-differs", record("method", "params", "threshold", value=0.5)),
    "a seed is edited": ("content-differs", record("run", "seed", value=7)),
    "what the key is made of is edited": ("content-key", row("content", "kv", value="evict")),
    "what the key is made of is left out": (
        "content-missing",
        lambda t: t.manifest(lambda m: m["rows"].pop(t.key("bumpy"))),
    ),
    "another protocol": ("protocol", of_another_protocol),
    "another task version": ("task-version", record("task", "version", value="2")),
    "another number of documents": ("task-facts", record("task", "n", value=7)),
    "another track": ("track", lambda t: t.renamed_track("base=000000000000 task=nano_translate@1")),
    "a task that is none": (
        "task-unknown",
        lambda t: t.manifest(lambda m: [f.update(task="file:/etc/passwd") for f in m["tracks"].values()]),
    ),
    "references are edited": (
        "documents-differ",
        lambda t: t.lines("documents.jsonl", lambda a: a[0].update(references=["."])),
    ),
    "other weights": ("weights-differ", other_weights),
    "damaged weights": ("weights-invalid", short_weights),
    "another fit": (
        "fit-differs",
        lambda t: text(fit_of(t) / "fit.json", lambda raw: raw.replace(b'"seed": 0', b'"seed": 1'))(t),
    ),
    "no fit": ("fit-missing", lambda t: shutil.rmtree(fit_of(t))),
    "edited source": ("source-hash", text("code/bumpy/bumpy.py", lambda raw: raw.replace(b" > ", b" >= "))),
    "no source": ("source-missing", lambda t: (t.folder / "code/bumpy/bumpy.py").unlink()),
    "edited sizes": (
        "costs-differ",
        lambda t: t.manifest(lambda m: [c.update(head=c["head"] + 1) for c in m["costs"].values()]),
    ),
    "no sizes": ("costs-missing", manifest("costs", value={})),
    "a time of no row": ("timing-unknown", times(lambda a: a[0].update(key="0" * 32))),
    "a time stands twice": ("timing-twice", times(twice)),
    "a time is lowered": ("timing-differs", times(lambda a: a[0].update(ms_per_document=0.1))),
    "a record of the future": ("future-schema", record("schema", value="dlbench.record/2")),
    "a score is NaN": ("not-finite", sample("score", value=float("nan"))),
    "a share is infinite": (
        "not-finite",
        text("records.jsonl", lambda raw: re.sub(rb'"mean":[^,}]+', b'"mean":1e999', raw, count=1)),
    ),
    "a line names a key twice": ("duplicate-key", text("documents.jsonl", two_keys)),
    "an unknown field": ("line-invalid", lambda t: t.record("bumpy", lambda r: r.update(better=1))),
    "a file ends within a line": ("cut-line", text("timing.jsonl", lambda raw: raw.rstrip(b"\n"))),
    "an endless line": ("too-large", text("timing.jsonl", lambda raw: b" " * 20_000 + raw)),
    "an archive bomb": ("archive", bomb),
    "nested without end": ("line-invalid", text("records.jsonl", lambda raw: b"[" * 100_000 + b"\n" + raw)),
}
"""What was done → the code, and the edit; hashes and seal fit again afterwards."""

LINK = "records.jsonl"


def linked(t):
    target = t.folder.parent / "elsewhere"
    (t.folder / LINK).rename(target)
    os.symlink(target, t.folder / LINK)


def escaping(t):
    (t.folder.parent / "secret").write_text("x")
    entry = {"bytes": 1, "sha256": "0" * 64}
    t.manifest(lambda m: m["files"].update({"../secret": entry, "/etc/hostname": entry, "code/a/../../b": entry}))


UNSEALED = {
    "a truncated file": ("file-truncated", text("timing.jsonl", lambda raw: raw[:-10])),
    "another file": ("file-hash", text("records.jsonl", lambda raw: raw.replace(b"0", b"1", 1))),
    "a file is missing": ("file-missing", lambda t: (t.folder / "documents.jsonl").unlink()),
    "a file too many": ("file-extra", lambda t: (t.folder / "notes.txt").write_text("hello")),
    "a link": ("link", linked),
    "a path outside of the folder": ("path-unsafe", escaping),
    "a seal that does not fit": ("seal", manifest("author", value="Mallory")),
    "a manifest in other bytes": ("manifest-not-canonical", text(FILE, lambda raw: raw + b" ")),
    "a manifest of the future": ("future-schema", manifest("schema", value="dlbench.submission/2")),
    "a manifest with a key twice": ("duplicate-key", text(FILE, lambda raw: raw.replace(b"{", b'{"author": "",', 1))),
    "a manifest with NaN": ("not-finite", text(FILE, lambda raw: raw.replace(b'"protocol": 3', b'"protocol": NaN'))),
    "a manifest that is no JSON": ("manifest-invalid", text(FILE, lambda raw: b"\xff" + raw)),
    "a manifest nested without end": ("manifest-invalid", text(FILE, lambda raw: b"[" * 200_000)),
    "a manifest with a field too many": ("manifest-invalid", lambda t: t.manifest(lambda m: m.update(more=1))),
    "no manifest": ("manifest-missing", lambda t: (t.folder / FILE).unlink()),
}
