"""What holds for every method that is installed: the contract that ships, clause by clause."""

from dataclasses import dataclass

import pytest
import torch

from dlbench.method import Method
from dlbench.registry import methods as registry

METHODS = [
    pytest.param(cls, params, id=f"{name}-{','.join(f'{k}={v}' for k, v in params.items())}")
    for name in registry.names()
    for cls in [registry.load(name)]
    for params in cls.variants
]
pytest_plugins = ["dlbench.testing"]
dlbench_methods = registry.names()


def test_contract(contract):
    contract()


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
