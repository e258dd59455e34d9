"""The plugin interface: a plugin imports this package and nothing else of dlbench.

A method is one small file with one class. Before every layer it decides for each token: run the layer, skip it, or
exit. The engine executes the decision and counts its FLOPs.

    from dataclasses import dataclass
    from dlbench.method import Action, Method, View

    @dataclass
    class EverySecond(Method):
        '''Run every second layer.'''

        def route(self, view: View) -> Action:
            return Action.SKIP if view.layer % 2 else Action.RUN

Do not keep state on `self` between calls: rows enter and leave a batch, and one instance serves all of them. State of a
row goes into its `memory`, which the engine keeps for it.

Base classes:

    Method       implements `route` itself
    Static       one fixed set of layers for all tokens
    Exit         exits when a confidence reaches a threshold
    Router       a learned gate per token, or per sequence
    Draft        self-speculation: drafts with some of the layers, verifies with all
    Oracle       chooses per document among published candidates, from their scores
"""

from dlbench.method.actions import Action, Knob, Prompt, Route, Scope
from dlbench.method.base import FitPart, Method, Probe, Text, TrainOptions, Written
from dlbench.method.draft import Draft
from dlbench.method.exits import Exit
from dlbench.method.oracle import Candidate, Oracle
from dlbench.method.router import Router
from dlbench.method.static import LayerSet, Static
from dlbench.method.view import View

__all__ = [
    "Action",
    "Candidate",
    "Draft",
    "Exit",
    "FitPart",
    "Knob",
    "LayerSet",
    "Method",
    "Oracle",
    "Probe",
    "Prompt",
    "Route",
    "Router",
    "Scope",
    "Static",
    "Text",
    "TrainOptions",
    "View",
    "Written",
]
