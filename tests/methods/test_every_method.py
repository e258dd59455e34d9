"""What holds for every method that is installed."""

import dataclasses
import json
from dataclasses import dataclass

import pytest
import torch

from dlbench.method import Method, Oracle, Router
from dlbench.registry import methods as registry

METHODS = [
    pytest.param(cls, params, id=f"{name}-{','.join(f'{k}={v}' for k, v in params.items())}")
    for name in registry.names()
    for cls in [registry.load(name)]
    for params in cls.variants
]


@pytest.mark.parametrize(("cls", "params"), METHODS)
def test_parameters_go_through_json(cls, params):
    made = cls.from_params(params)
    stored = json.loads(json.dumps(made.params()))
    again = cls.from_params(stored)
    assert again == made and again.params() == stored
    assert set(stored) == {f.name for f in dataclasses.fields(made) if f.init}
    assert {k: stored[k] for k in params} == dict(params)


@pytest.mark.parametrize(("cls", "params"), METHODS)
def test_parameters_fit_common_depths(cls, params):
    for depth in (4, 16, 24, 32):
        cls.from_params(params).validate(depth)


@pytest.mark.parametrize(("cls", "params"), METHODS)
def test_says_what_it_is(cls, params):
    made = cls.from_params(params)
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")  # dataclass's own
    if isinstance(made, Oracle):
        assert not made.deployable
        return
    assert isinstance(made, Method) and made.scope in ("static", "sequence", "token")
    if made.knob is not None:
        assert made.knob.name in made.params() and made.knob.low != made.knob.high
    assert set(made.kv) <= {"project", "evict", "recompute"} and "project" in made.kv
    assert not made.uses_future or not made.deployable
    assert made.fitted or not isinstance(made, Router)


@pytest.mark.parametrize(("cls", "params"), METHODS)
def test_unknown_parameters_are_refused(cls, params):
    with pytest.raises(ValueError, match="no parameter 'depht'"):
        cls.from_params({**params, "depht": 3})


@pytest.mark.parametrize(
    "cls", [c for c in map(registry.load, registry.names()) if issubclass(c, Method) and not c.fitted]
)
def test_rules_take_no_weights(cls):
    assert cls().weights() == {}
    with pytest.raises(ValueError, match="takes no weights"):
        cls().load_weights({"x": torch.ones(1)})


def test_a_plugin_that_uses_the_former_names_is_read_and_told():
    with pytest.warns(FutureWarning) as told:

        @dataclass
        class Plugin(Method):
            couples_rows = True
            foresees = True
            deployable = False

            def route(self, view):
                return self.batch_dependent

    assert Plugin().batch_dependent and Plugin().uses_future
    assert [str(one.message).split(";")[0] for one in told] == [
        "Plugin: `couples_rows` is called `batch_dependent` now",
        "Plugin: `foresees` is called `uses_future` now",
    ]
    assert {one.filename for one in told} == {__file__}
