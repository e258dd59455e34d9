"""The commit of the suite that a record names."""

import json
import subprocess

import pytest

from dlbench.system import versions


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package elsewhere, which the suite is taken for."""
    (tmp_path / "dlbench").mkdir()
    (tmp_path / "dlbench" / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(versions, "files", lambda name: tmp_path / name)
    return tmp_path


def commit():
    return versions.commit.__wrapped__()


def git(folder, *command):
    identity = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_code_has_changed_since(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-qm", "one")
    head = git(package, "rev-parse", "HEAD")
    assert commit() == head
    (package / "notes.txt").write_text("changes no figure")
    assert commit() == head
    (package / "methods").mkdir()
    (package / "methods" / "new.py").write_text("")
    assert commit() == head + "+changes"


def test_a_checkout_that_git_cannot_read_tells_nothing(package):
    (package / ".git").write_text("nonsense")
    assert commit() is None


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"url": "https://example.org/dlbench", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}, "abc123"),
        ({"url": "file:///elsewhere", "dir_info": {}}, None),
        (None, None),
    ],
)
def test_an_installed_package_tells_the_commit_that_pip_took(package, monkeypatch, told, found):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return None if told is None else json.dumps(told)

    monkeypatch.setattr(versions, "distribution", lambda name: Installed())
    assert commit() == found
