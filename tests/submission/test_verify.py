"""Some documents are decoded again: an honest submission is reproduced, one whose method was changed is not."""

import pytest

from dlbench.audit.isolated.findings import Finding
from dlbench.audit.isolated.start import Audited
from dlbench.cli import main
from dlbench.errors import DlbenchError
from dlbench.records.schema import Sample
from dlbench.submission.badge import read_badge
from dlbench.submission.sample_diff import compare
from dlbench.submission.validation import validate
from dlbench.submission.verification import Verification, reproduced


def verification(folder, model, documents=4, nonce=""):
    """A verification one document at a time; the submission came of two processes and batches of three."""
    result = validate(folder, rules="consistent")
    assert result.passed, result.faults.faults
    return Verification(result.submission, documents, nonce, [str(model)], "cpu", 1, timing=False)


def test_an_honest_submission_is_reproduced(packed, tmp_path, capsys):
    path = tmp_path / "badge"
    line = ["verify", str(packed), "--documents", "3", "--model", str(packed.parent / "model"), "--rules", "consistent"]
    assert main([*line, "--batch-size", "1", "--no-timing", "--badge", str(path), "--who", "Ada"]) == 0
    assert "badge: reproduced" in capsys.readouterr().out
    badge = read_badge(path)
    assert (badge.trust, badge.who, badge.documents) == ("reproduced", "Ada", 3)
    assert badge.submission == validate(packed, rules="consistent").manifest.seal
    assert badge.hardware.processor and badge.versions["torch"] and badge.when.endswith("+00:00")
    assert len(badge.rows) == 4 and all(row.same + row.near_ties == 3 and not row.differing for row in badge.rows)


def test_one_threshold_is_another_method(tampering, packed, monkeypatch):
    """All hashes, and the key, are made to fit: no file tells, only the method itself."""
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))

    def change(record, content):
        for params in (record["method"]["params"], content["method"][1]):
            params["threshold"] += 0.1

    tampering.renamed("bumpy", change)
    tampering.seal()
    work = verification(tampering.folder, packed.parent / "model")
    rows = work.run()
    wrong = {row.method for row in rows if row.differing}
    assert wrong == {"bumpy"} and not reproduced(rows)
    badge = work.badge(rows, "Ada", maintainer=True)
    assert badge.trust == "validated"
    (bumpy,) = (row for row in rows if row.method == "bumpy")
    assert any("routes" in how for _, how in bumpy.differing)


def test_a_method_that_fails_on_some_documents_earns_nothing_by_the_others(packed, monkeypatch):
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))
    work = verification(packed, packed.parent / "model")
    loaded, texts = work._method, []

    def fails_later(record):
        method = loaded(record)
        route = method.route

        def once(view):
            texts.append(view.layer == 1 and bool((view.step == 0).any()))
            if sum(texts) > 2:
                raise ValueError("cannot be reproduced")
            return route(view)

        if record.method.name == "bumpy":
            method.route = once
        return method

    monkeypatch.setattr(work, "_method", fails_later)
    with pytest.raises(DlbenchError, match="cannot be reproduced"):
        work.run()


def test_nothing_is_decoded_of_a_submission_whose_audit_finds_something(packed, capsys, monkeypatch):
    asked = []

    def found(cases):
        asked.extend(cases)
        yield Audited("bumpy", {}, (Finding("files", "open /secret"),), 1.0, 1.0)

    monkeypatch.setattr("dlbench.submission.verification.audit", found)
    assert main(["verify", str(packed), "--model", str(packed.parent / "model"), "--rules", "consistent"]) == 2
    said = capsys.readouterr().err
    assert "it reads files that are not its own: open /secret" in said and "bumpy (files)" in said
    (case,) = asked  # what is built in needs no audit
    assert (
        case.given == "bumpy" and case.file.read_text().count("class Bumpy") == 1 and set(case.params) == {"threshold"}
    )


def test_the_submission_and_a_nonce_draw_the_documents(packed):
    work = verification(packed, packed.parent / "model", documents=2)
    (record,) = (r for r in work.submission.records if r.method.name == "full")
    own, engine = work.submission.track(record.track), work._engine(record)
    drawn = [d.id for d in work._drawn(record.track, own, engine)]
    assert drawn == [d.id for d in work._drawn(record.track, own, engine)] and len(drawn) == 2
    others = set()
    for nonce in "abcdef":
        work.nonce = nonce
        others.add(tuple(d.id for d in work._drawn(record.track, own, engine)))
    assert len(others) > 1


def test_an_invalid_submission_is_not_decoded(packed, capsys):
    assert main(["verify", str(packed), "--documents", "1"]) == 2  # no official run
    assert "`dlbench validate" in capsys.readouterr().err


def sample(**more):
    facts = {
        "id": "a", "output": "one two", "score": 0.0, "layers": [2.0, 2.0], "routes": [["33", 2]],
        "pieces": ["one", " two", "</s>"], "truncated": False, "tokens": {"prompt": 3, "generated": 3},
        "flops": dict.fromkeys(("layers", "attention", "heads", "kv", "router"), 1),
        "prompt_flops": 9, "executed_flops": 9,
    }  # fmt: skip
    return Sample.model_validate({**facts, **more})


OTHER = {"output": "one six", "pieces": ["one", " six", "</s>"]}


@pytest.mark.parametrize(
    ("ties", "agreed"),
    [([(1, 5e-5)], True), ([(1, 5e-4)], False), ([(0, 5e-5)], False), ([(2, 5e-5)], False), ([], False)],
)
def test_rounding_may_decide_where_the_texts_part(ties, agreed):
    """Only a margin below the tolerance, at the very token, explains another text; the claim's own ties count not."""
    claimed, again = sample(tight=[(1, 1e-9)]), sample(**OTHER, tight=ties)
    assert (compare(claimed, again) == "near tie") is agreed


def test_a_route_parts_where_its_token_is_made():
    claimed, routed = sample(), {"routes": [["33", 1], ["03", 1]], "layers": [2.0, 1.0]}
    assert compare(claimed, sample(**routed, tight=[(2, 5e-5)])) == "near tie"
    assert "other routes" in compare(claimed, sample(**routed, tight=[(1, 5e-5)]))


def test_padding_is_no_difference():
    assert compare(sample(), sample(executed_flops=99)) == "same"
    assert "FLOPs" in compare(sample(), sample(prompt_flops=8))
