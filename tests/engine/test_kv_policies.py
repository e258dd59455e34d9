"""A KV policy is one file with one class: option, check of methods, engine and records know it by the file's name."""

import importlib
import sys
import typing

import numpy as np
import pytest
import small_model
import torch

from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.engine.kv import policies
from dlbench.engine.kv.policies.project import Project
from dlbench.engine.kv.row_cache import RowCache
from dlbench.errors import DlbenchError
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.registry import kv_policies
from dlbench.registry.methods import load
from dlbench.running.config import RunSpec

BLANK = '''
"""KV policy `blank`: later tokens attend to keys and values of zeros."""

from dlbench.engine.kv.policy import KVPolicy


class Blank(KVPolicy):
    skips = []

    def affects(self, layer):
        return False

    def skipped(self, layer, slots, hidden):
        self.skips.append(layer)

    def move(self, target, source):
        return

    def clear(self, slots):
        return
'''
ODD = '''
from dataclasses import dataclass
from typing import ClassVar

from dlbench.method import Method


@dataclass
class Odd(Method):
    """Odd layers run at odd steps only."""

    kv: ClassVar[tuple[str, ...]] = ("project", "blank")

    def route(self, view):
        return view.layer % 2 <= view.step % 2
'''


@pytest.fixture
def blank(tmp_path, monkeypatch):
    """The class of a policy that stands in one file of a folder of its own."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "blank.py").write_text(BLANK)
    folders = [*kv_policies.FOLDERS, str(folder)]
    monkeypatch.setattr(kv_policies, "FOLDERS", folders)
    monkeypatch.setattr(policies, "__path__", folders)
    monkeypatch.delitem(sys.modules, f"{policies.__name__}.blank", raising=False)  # of the test before
    return policies.load("blank")


@pytest.fixture
def odd(tmp_path):
    path = tmp_path / "odd.py"
    path.write_text(ODD)
    return str(path)


def test_the_folder_is_the_only_list():
    assert kv_policies.names() == ("evict", "project", "recompute")
    assert policies.__path__ is kv_policies.FOLDERS
    from dlbench.commands.run import run

    (option,) = typing.get_args(typing.get_type_hints(run, include_extras=True)["kv"])[1:]
    assert "evict, project, recompute" in option.help


def test_a_dummy_is_known_by_its_file(blank, odd):
    assert kv_policies.names() == ("blank", "evict", "project", "recompute")
    RunSpec(kv="blank").check()
    assert load(odd).kv == ("project", "blank")
    import dlbench.commands.options.declared as declared
    import dlbench.commands.run as command

    try:
        importlib.reload(declared)
        hints = typing.get_type_hints(importlib.reload(command).run, include_extras=True)
        assert "blank, evict, project, recompute" in typing.get_args(hints["kv"])[1].help
    finally:
        importlib.reload(declared)
        importlib.reload(command)


def test_a_layer_is_unaffected_once_nothing_is_due():
    """Else it would be asked at every later step, once rows have differed."""
    cache = RowCache([None] * 2, 3, 20)
    cache.seat(np.arange(3), np.array([4, 2, 3]), 4)
    cache.seen = 4
    policy = Project(cache, 8)
    assert not policy.affects(0)
    policy.skipped(0, np.array([1]), torch.ones(3, 1, 2))
    assert policy.affects(0) and not policy.affects(1)
    cache.advance(1)
    policy.due(0, np.array([0, 2]))
    assert policy.affects(0)
    assert policy.due(0, None).slots.tolist() == [1]
    assert not policy.affects(0) and policy.due(0, None) is None


def test_without_the_file_the_name_is_refused(odd):
    with pytest.raises(DlbenchError, match=r"unknown kv policy 'blank'"):
        RunSpec(kv="blank").check()
    with pytest.raises(DlbenchError, match=r"kv = \('project', 'blank'\) is no tuple of evict, project, recompute"):
        load(odd)


def test_a_file_without_one_class_is_refused(blank, tmp_path):
    (tmp_path / "policies" / "empty.py").write_text("")
    with pytest.raises(DlbenchError, match=r"empty\.py must define exactly one class .* but it defines none"):
        policies.load("empty")


def test_the_engine_runs_it(blank, odd):
    torch.manual_seed(0)
    from tiny_models import backbone

    wave = Engine(backbone("llama", 4)).prefill([Request("a", (5, 6, 7), 6), Request("b", (8, 9), 6)])
    written = wave.decode(load(odd)(), kv="blank")
    assert blank.skips == [1, 3] * 3  # at the even ones of five steps
    assert all(g.flops["kv"] == 0 for g in written)
    with pytest.raises(DlbenchError, match="does not support kv policy 'evict': it has project, blank"):
        wave.decode(load(odd)(), kv="evict")


def test_the_option_takes_it_and_the_record_names_it(blank, odd, tmp_path):
    model = small_model.save(tmp_path / "model")
    line = ["run", "--model", str(model), "--task", "nano_summary", "--limit", "2", "--method", odd, "--no-timing"]
    assert main([*line, "--processes", "1", "--kv", "blank", "--out", str(tmp_path / "out")]) == 0
    (record,) = (r for r in read_lines(tmp_path / "out" / "records.jsonl", Record) if r.method.name == "odd")
    assert record.run.kv == "blank" and record.compute and record.compute.flops.kv == 0
    assert blank.skips
