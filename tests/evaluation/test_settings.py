"""Settings: which of them give the same outputs, and what their content keys depend on."""

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from record_samples import FakeTask, conditions, document

import dlbench
from dlbench.data.document import documents_sha256
from dlbench.evaluation.settings import Setting, variants
from dlbench.method import Action, Method
from dlbench.methods.full import Full
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip
from dlbench.methods.unified_skip import UnifiedSkip
from dlbench.registry import provenance

DEPTH = 8


class FirstHalf(Method):
    """Static by its own word, and it does not say which layers it runs."""

    @property
    def scope(self):
        return "static"

    def route(self, view):
        return Action.RUN if view.layer < view.depth // 2 else Action.SKIP


def setting(method, name="x", given="full", **more):
    return Setting(name, given, method, None, **more)


def test_equal_sets_of_layers_run_once():
    exits, first = setting(StaticExit(share=0.5)), setting(StaticSkip(only=(0, 1, 2, 3)))
    assert exits.output_key(DEPTH) == first.output_key(DEPTH) is not None
    assert setting(UnifiedSkip(speedup=2)).output_key(DEPTH) != exits.output_key(DEPTH)
    assert setting(StaticExit(share=0.5)).output_key(16) != exits.output_key(DEPTH)


def test_full_is_alike_every_set_of_all_layers():
    full = setting(Full(), "full")
    assert full.output_key(DEPTH) == setting(StaticExit(share=1.0)).output_key(DEPTH)
    assert setting(Full(), "full", sample=1).output_key(DEPTH) != full.output_key(DEPTH)
    assert setting(Full(), "full", sample=1).output_key(DEPTH) != setting(Full(), "full", sample=2).output_key(DEPTH)


def test_what_is_not_known_to_be_alike_is_run():
    for method in (FirstHalf(), RandomSkip(), RandomSkip(per="sequence"), HiddenRouter()):
        assert setting(method).output_key(DEPTH) is None


def test_a_content_key_names_what_outputs_depend_on():
    here = conditions()
    made = [
        setting(StaticSkip()),
        setting(StaticSkip(share=0.25)),
        setting(StaticSkip(), given="static_skip"),  # another source
        setting(StaticSkip(), sample=1),
        setting(StaticExit()),
    ]
    keys = [here.key(s) for s in made]
    assert len(set(keys)) == len(keys)
    assert here.key(setting(StaticSkip(), name="other")) == keys[0]
    assert here.key(dataclasses.replace(made[0], budget=0.5)) == keys[0]  # what it aims at does not change what it does
    assert conditions(batch_size=7, limit=3, processes=2).key(made[0]) == keys[0]
    assert here.key(dataclasses.replace(made[0], seed=1)) != keys[0]
    assert conditions(prompt="routed").key(made[0]) != keys[0]
    assert here.with_key(made[0]).key == keys[0]


def test_a_fit_key_names_what_is_learnt_and_tuned_by(monkeypatch):
    def key(at, method=None, given="static_skip", budget=0.5, seed=0, documents="x"):
        return at.fit_key(given, method or StaticSkip(), budget, seed, documents)

    here = conditions()
    bfloat16 = dataclasses.replace(here, backbone=dataclasses.replace(here.backbone, dtype="bfloat16"))
    rescored = FakeTask()
    rescored.scoring_sha256 = "cd" * 32
    others = [
        key(bfloat16),
        key(dataclasses.replace(here, task=rescored)),
        key(conditions(prompt="routed")),
        key(here, StaticSkip(share=0.25)),
        key(here, given="static_exit"),
        key(here, budget=0.25),
        key(here, seed=1),
        key(here, documents="y"),
    ]
    monkeypatch.setattr("dlbench.evaluation.settings.fitting_sha256", lambda: "ef" * 32)
    others.append(key(here))
    monkeypatch.undo()
    assert len({key(here), *others}) == 1 + len(others)
    assert key(here) == key(conditions(batch_size=7, limit=3, processes=2))
    assert key(here, RandomSkip()) != key(conditions(kv="evict"), RandomSkip())
    assert key(here) == key(conditions(kv="evict"))  # all policies are one to a static set


@pytest.mark.parametrize(
    "changed", ["fit/router_training.py", "fit/tune.py", "method/router.py", "prompting/teacher_forcing.py"]
)
def test_the_code_of_fits_counts_and_its_prose_does_not(changed, tmp_path, monkeypatch):
    """Files are read from a copy of the package in which one of them is changed."""
    package = Path(dlbench.__file__).parent
    shutil.copytree(package, tmp_path / "dlbench", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "dlbench" / changed

    def found(name):
        inside = tmp_path / name.replace(".", "/")
        folder = inside.is_dir()
        file = inside / "__init__.py" if folder else inside.with_suffix(".py")
        return importlib.util.spec_from_file_location(name, file, submodule_search_locations=[] if folder else None)

    plain = provenance.fitting()
    monkeypatch.setattr(provenance.importlib.util, "find_spec", found)
    assert provenance.fitting() == plain
    path.write_text("# a remark\n" + path.read_text())
    assert provenance.fitting() == plain
    path.write_text(path.read_text() + "\nSTEPS = 7\n")
    assert provenance.fitting() != plain


def test_the_kv_policy_counts_where_it_can_matter():
    """A method that never comes back to a layer it left out has one row, whatever the policy."""
    own, asked = conditions(), conditions(kv="evict")
    for method in (Full(), StaticSkip(), StaticExit(), UnifiedSkip(), RandomSkip(per="sequence")):
        assert asked.kv(method) == own.kv(method) == "project"
        assert asked.key(setting(method)) == own.key(setting(method))
    per_token = RandomSkip()
    assert (own.kv(per_token), asked.kv(per_token)) == ("project", "evict")
    assert (
        asked.key(setting(per_token)) != own.key(setting(per_token)) == conditions(kv="project").key(setting(per_token))
    )


def test_a_content_key_names_the_weights():
    keys = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        router = HiddenRouter()
        router.module(DEPTH, 32)
        keys.append(conditions().key(setting(router)))
    assert keys[0] == keys[1] != keys[2]


def test_documents_are_named_by_all_that_a_score_depends_on():
    same = [document("a", ["x"]), document("b", ["y"])]
    others = [
        [document("a", ["x"])],
        same[::-1],
        [document("a", ["z"]), same[1]],
        [dataclasses.replace(same[0], prompt="?"), same[1]],
        [dataclasses.replace(same[0], limit=9), same[1]],
        [dataclasses.replace(same[0], stop=("\n",)), same[1]],
    ]
    assert len({documents_sha256(d) for d in [same, list(same), *others]}) == 1 + len(others)


def test_settings_of_the_user_take_the_place_of_variants():
    assert variants(RandomSkip, {}) == [{"per": "token"}, {"per": "sequence"}]
    assert variants(RandomSkip, {"per": "token"}) == [{"per": "token"}]
    assert variants(RandomSkip, {"first": True}) == [
        {"per": "token", "first": True},
        {"per": "sequence", "first": True},
    ]
    assert variants(StaticSkip, {"share": 0.5}) == [{"share": 0.5}]
