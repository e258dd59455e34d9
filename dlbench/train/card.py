"""The card of a trained backbone: `dlbench.json` for programs, `README.md` and a table for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from dlbench.errors import DlbenchError
from dlbench.records.fields import Count, Sha256
from dlbench.records.jsonl import Part
from dlbench.system.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

CARD_FILE = "dlbench.json"
"""`dlbench.models.loading.load` reads the base's hash from it."""


class TrainingSource(Part):
    """The documents of one task that were learnt from."""

    task: str
    version: str
    split: Literal["train", "fit"]
    """train: generated documents; fit: the learn part of the fit split."""
    generator: str | None
    """The function that generated them; None for a fit split."""
    sha256: Sha256
    """sha256 of the documents."""
    documents: Count
    left_out: Count
    """Number of documents left out because their prompt is scored or measured on."""
    epochs: Count
    tokens: Count
    """Number of prompt and target tokens, over all epochs."""
    targets: Count


class Learnt(Part):
    """What of the model was trained."""

    parameters: Count
    """Number of trained parameters."""
    of: Count
    """Number of parameters of the model."""
    rank: Count | None = None
    """Of the adapters (LoRA); None where the model's own weights were trained."""
    alpha: Count | None = None
    modules: tuple[str, ...] = ()
    """The linear maps that have an adapter, by their paths within a decoder layer."""
    without: tuple[str, ...] = ()
    """The matrices of the same layers that have none."""
    without_share: float | None = None
    """Their share of the weights of these layers; None on cards from before the field existed."""

    def line(self) -> str:
        """Return it as one sentence."""
        share = f"{self.parameters:,} of {self.of:,} parameters ({self.parameters / self.of:.1%})"
        if self.rank is None:
            return f"Trained: {share}."
        where = ", ".join(self.modules)
        none = f"{', '.join(self.without)} have none ({self.without_share:.1%} of the weights of these layers); "
        return (
            f"Trained: {share} with the adapters, which are LoRA of rank {self.rank}, alpha {self.alpha}, on {where} "
            f"of the decoder layers; {none * bool(self.without)}embedding, norms and head are the base's. Here they "
            "are merged into the weights; "
            "`adapter/` has them alone."
        )


class Measured(Part):
    """Quality of one set of layers on the tune part of one task's fit split, before the training and after."""

    task: str
    metric: str
    documents: Count
    name: str
    """`full`, `exit 4`, or the static method that was trained for."""
    layers: tuple[int, ...]
    """Executed layers."""
    before: float
    after: float


class Card(Part):
    """How a backbone was trained."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    sha256: Sha256
    """Of the trained model's files, by `dlbench.models.checkpoint.hashes.fingerprint`."""
    base_sha256: Sha256
    """Of the model at the root of the chain of trainings, which rows are compared with."""
    parent: str
    """Name of the model that was trained."""
    parent_sha256: Sha256
    family: str
    depth: Count
    recipe: str
    options: dict[str, Any]
    """The recipe's options."""
    settings: dict[str, Any]
    """The optimizer's settings."""
    learnt: Learnt | None = None
    """None on cards from before the field existed."""
    sources: tuple[TrainingSource, ...]
    seed: int
    steps: Count
    tokens: Count
    """Prompt and target tokens seen."""
    targets: Count
    seconds: float
    """Time of the steps, over all starts; without measuring and making the data."""
    processes: Count
    device: str
    prompt: Literal["full", "routed"]
    """Prompt policy of the measurements."""
    quality: tuple[Measured, ...]
    versions: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Names of the measured sets of layers, in order."""
        return list(dict.fromkeys(m.name for m in self.quality))

    @property
    def tasks(self) -> dict[str, str]:
        """Task -> metric."""
        return {m.task: m.metric for m in self.quality}

    def cell(self, name: str, task: str) -> str:
        """Return the quality before and after, as text."""
        (cell,) = (m for m in self.quality if (m.name, m.task) == (name, task))
        return f"{cell.before:.3f} → {cell.after:.3f}"

    def caption(self) -> str:
        """Return the caption of the table."""
        n = max((m.documents for m in self.quality), default=0)
        prompt = "prompts run every layer" if self.prompt == "full" else "prompts run the same layers"
        return f"Before → after, {n} documents per task of the fit split that were not learnt from; {prompt}."

    def recipe_line(self) -> str:
        """Return the recipe and what it cost, in one sentence."""
        spent = f"{self.seconds / 60:.1f} minutes" if self.seconds >= 60 else f"{self.seconds:.0f} seconds"
        return (
            f"Trained from {self.parent} ({self.family}, {self.depth} layers) with recipe {self.recipe}: "
            f"{self.tokens:,} tokens in {self.steps:,} steps, {spent} on {self.processes} "
            f"{'process' if self.processes == 1 else 'processes'} ({self.device})."
        )


def read_card(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        DlbenchError: there is none, or it is damaged.
    """
    path = folder / CARD_FILE
    try:
        return Card.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DlbenchError(f"{folder} has no card: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DlbenchError(f"{path} is no card of a trained backbone ({where}: {first['msg']})") from error


def write_card(card: Card, folder: Path, name: str) -> None:
    """Write both cards, JSON and README, into a model folder."""
    write_text(folder / CARD_FILE, card.model_dump_json(by_alias=True, indent=1) + "\n")
    write_text(folder / "README.md", markdown(card, name))


def rich_table(card: Card) -> Table:
    """Return the table that is printed after a training."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("layers", no_wrap=True)
    for task, metric in card.tasks.items():
        table.add_column(Text(f"{task}\n{metric}"), justify="right", no_wrap=True)
    for name in card.names:
        style = "bold" if name == "full" else ""
        table.add_row(Text(name), *(card.cell(name, task) for task in card.tasks), style=style)
    return table


def markdown(card: Card, name: str) -> str:
    """Return the README of a model folder."""
    lines = [f"# {name}", "", card.recipe_line(), ""]
    if card.quality:
        rows = [[n, *(card.cell(n, task) for task in card.tasks)] for n in card.names]
        lines += [*_grid(["layers", *(f"{task} ({metric})" for task, metric in card.tasks.items())], rows), ""]
        lines += [card.caption(), ""]
    lines += ["## Use", "", f"    dlbench run --model {name} --task {next(iter(card.tasks), 'TASK')}", ""]
    lines += ["Its rows stand in the track of the base model, and `retained` is against that where both are run.", ""]
    header = ["task", "version", "split", "documents", "epochs", "tokens", "sha256"]
    facts: list[Callable[[TrainingSource], Any]] = [
        lambda s: s.task,
        lambda s: s.version,
        lambda s: "drawn" if s.generator else f"{s.split}, learn part",
        lambda s: f"{s.documents:,}",
        lambda s: s.epochs,
        lambda s: f"{s.tokens:,}",
        lambda s: f"`{s.sha256[:16]}`",
    ]
    lines += ["## Data", "", *_grid(header, [[str(fact(s)) for fact in facts] for s in card.sources]), ""]
    left_out = sum(s.left_out for s in card.sources)
    lines += [f"No prompt of a test document is among them ({left_out} left out).", "", "## Training", ""]
    settings = {**card.options, **card.settings, "seed": card.seed}
    lines += [*_grid(["setting", "value"], [[k, f"`{v}`"] for k, v in settings.items()]), ""]
    if card.learnt is not None:
        lines += [card.learnt.line(), ""]
    lines += [f"Base: `{card.base_sha256}`; trained from `{card.parent_sha256}`.", ""]
    lines += ["Versions: " + ", ".join(f"{k} {v}" for k, v in card.versions.items()) + ".", ""]
    lines += [f"`{CARD_FILE}` holds all of this for programs. The licence is that of the model it was trained from."]
    return "\n".join(lines) + "\n"


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
