"""Any method as a model of lm-eval's own command line: `dlbench.lm_eval_model.model` is what lm-eval loads.

Releases of lm-eval after 0.4.13 find it by the entry point `lm_eval.models`; for others `register` has to be called
before, as `dlbench lm-eval` does. Importing this package is fast.
"""

NAME = "dlbench"
"""What `--model` is given."""
_TARGET = "dlbench.lm_eval_model.model:DlbenchLM"


def register() -> None:
    """Add the model to lm-eval's registry, which imports it when it is asked for."""
    import lm_eval.models  # noqa: F401  # lm-eval adds its own models to an empty registry only
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=_TARGET)
