"""Every token runs every layer: the reference that all quality and cost is measured against."""

from dataclasses import dataclass

from dlbench.method import Action, Method, Scope, View


@dataclass
class Full(Method):
    """Run every layer for every token."""

    @property
    def scope(self) -> Scope:
        return "static"

    def route(self, view: View) -> Action:
        return Action.RUN
