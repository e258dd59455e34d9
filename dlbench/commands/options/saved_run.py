"""The options of a run in a file: `--config FILE`, YAML or TOML by the options' names, or the run.json of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from dlbench.errors import DlbenchError
from dlbench.system.paths import brief, expanded
from dlbench.terminal.suggest import unknown

_LISTS = ("model", "task", "method", "budget", "set", "include_path", "track")
_OF_SPEC = {
    "models": "model",
    "tasks": "task",
    "methods": "method",
    "budgets": "budget",
    "include": "include_path",
    "fit": "refit",
}
_LARGEST = 1 << 20


def read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Take a file's options for those that the command line does not give: the callback of `--config`.

    Raises:
        DlbenchError: the file cannot be read, or holds something else than options.
    """
    if path is None:
        return None
    path = expanded(path, "--config")
    known = {str(p.name).rstrip("_"): str(p.name) for p in context.command.params if p.name not in ("config", "help")}
    options: dict[str, Any] = {}
    for given, value in _options(path).items():
        name = str(given).replace("-", "_")
        if name not in known:
            raise unknown("option", str(given), [k.replace("_", "-") for k in known], where=f"in {path}")
        if value is not None:
            options[known[name]] = _value(path, name, value)
    context.default_map = {**(context.default_map or {}), **options}
    return path


def _options(path: Path) -> dict[str, Any]:
    """The options in a file by name."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DlbenchError(f"--config {path}: larger than {_LARGEST:,} bytes, so it holds no options")
        content = _parsed(path.suffix, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # of TOML and JSON too
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DlbenchError(f"--config {brief(str(path))}: {reason}") from None
    if not isinstance(content, dict):
        raise DlbenchError(f"--config {path}: give options by name, such as `limit: 100`")
    return _of_run(content["spec"]) if isinstance(content.get("spec"), dict) else content


def _parsed(suffix: str, text: str) -> Any:
    """The content of a file.

    Raises:
        ValueError: it is not of the kind that its name says.
    """
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _of_run(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options that gave a run, from its run.json."""
    spec = {**spec, **(spec.get("sources") or {})}
    settings = (spec.pop("settings", None) or {}).items()
    limit, first = spec.pop("limit", None), spec.pop("limit_first", False)
    spec.pop("sources", None)
    spec["set"] = [f"{name}.{p}={json.dumps(value)}" for name, values in settings for p, value in values.items()]
    spec["limit"] = "all" if limit is None else f"first:{limit}" if first else str(limit)
    for name in ("batch_size", "processes"):
        spec[name] = "auto" if spec.get(name) is None else str(spec[name])
    return {_OF_SPEC.get(name, name): value for name, value in spec.items()}


def _value(path: Path, name: str, value: Any) -> Any:
    """A value as the command line would give it."""
    if name in _LISTS:
        values = value if isinstance(value, list) else [value]
        if all(isinstance(one, str | int | float) for one in values):
            return [one if name == "budget" else str(one) for one in values]
    elif isinstance(value, bool | int | float | str):
        return value if isinstance(value, bool) else str(value)
    raise DlbenchError(f"--config {path}: {name} must be a text or a number" + " or a list" * (name in _LISTS))
