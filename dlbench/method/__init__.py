"""The interface of a method: everything that a plugin imports.

A method is one small file with one class. It says, for every token and just before every layer, whether the token
runs the layer, skips it or leaves the stack; the engine executes the answer and counts what it cost.

    from dataclasses import dataclass
    from dlbench.method import Action, Method, View

    @dataclass
    class EverySecond(Method):
        '''Run every second layer.'''

        def route(self, view: View) -> Action:
            return Action.SKIP if view.layer % 2 else Action.RUN

State must not live on `self` between calls: rows of a batch come and go, and one instance serves all of them. What a
row must remember stands in its `memory`, which the engine carries.

A method derives from one of these:

    Method       decides by itself: `route`
    Static       a fixed plan for all tokens
    Exit         leaves when a confidence crosses a threshold
    Router       a learned gate per token, or per sequence
    Draft        drafts with some of the layers and verifies with all: self-speculation
    Oracle       chooses among published candidates, knowing how each of them scored
"""

from dlbench.method.base import Action, Knob, Method, Prompt, Route, Scope
from dlbench.method.draft import Draft
from dlbench.method.exits import Exit
from dlbench.method.oracle import Candidate, Oracle
from dlbench.method.probe import Probe, Text, Written
from dlbench.method.router import Router
from dlbench.method.static import LayerSet, Static
from dlbench.method.view import View

__all__ = [
    "Action",
    "Candidate",
    "Draft",
    "Exit",
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
    "View",
    "Written",
]
