"""What routes alone do not tell of a method's answers: exits, scales, adapters' outputs, own heads' tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, final

import torch
from torch import Tensor, nn

from dlbench.method import Action, Draft, Method, Route, Static, View

_SKIP = int(Action.SKIP)


@final
class Recording:
    """Answers of one decoding run, in order of the questions."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        """`row step layer` → `code`; where there are any: `scale`, `added` by an adapter, `token` of an own head."""
        self._asked: tuple[int, list[str]] = (0, [])
        """The layer asked about last, and its tokens."""

    @contextlib.contextmanager
    def of(self, method: Method) -> Iterator[None]:
        """Record while entered; fixed sets of layers and drafts have nothing beyond their routes."""
        if isinstance(method, Static | Draft):
            yield
            return
        route, bypass, head = method.route, method.bypass, method.head

        def routed(view: View) -> Any:
            self._asked = view.layer, self._places(view)
            given = route(view)
            self._note(given)
            return given

        own = vars(method)
        own["route"] = routed
        if type(method).bypass is not Method.bypass:
            own["bypass"] = lambda layer: self._wrapped(bypass(layer), self._added)
        if type(method).head is not Method.head:
            own["head"] = lambda layer: self._wrapped(head(layer), self._chosen)
        try:
            yield
        finally:
            for name in ("route", "bypass", "head"):
                own.pop(name, None)

    def _places(self, view: View) -> list[str]:
        places = zip(view.row.tolist(), view.step.tolist(), strict=True)
        return [f"{row} {step} {view.layer}" for row, step in places]

    def _note(self, given: Any) -> None:
        _, places = self._asked
        answer, scale = (given.codes, given.scale) if isinstance(given, Route) else (given, None)
        if isinstance(answer, Tensor):
            codes = (answer.long() * (int(Action.RUN) if answer.dtype == torch.bool else 1)).tolist()
        else:
            code = int(Action.RUN) * answer if isinstance(answer, bool) else int(answer)
            codes = [code] * len(places)
        scales = [None] * len(places) if scale is None else scale.double().tolist()
        for place, code, factor in zip(places, codes, scales, strict=True):
            entry = self.answers.setdefault(place, {})
            entry["code"] = code
            if factor is not None:
                entry["scale"] = factor

    def _wrapped(self, module: nn.Module | None, note: Any) -> nn.Module | None:
        return None if module is None else _Noted(module, note)

    def _added(self, out: Tensor) -> None:
        passing = [place for place in self._asked[1] if self.answers[place]["code"] == _SKIP]
        rows = out.double().expand(len(passing), -1)
        for place, row in zip(passing, rows.tolist(), strict=True):
            self.answers[place]["added"] = row

    def _chosen(self, out: Tensor) -> None:
        for place, token in zip(self._asked[1], out.argmax(-1).tolist(), strict=True):
            self.answers.setdefault(place, {})["token"] = token


class _Noted(nn.Module):
    """A module whose results are noted."""

    def __init__(self, module: nn.Module, note: Any) -> None:
        super().__init__()
        self.inner, self._note = module, note

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        self._note(out)
        return out
