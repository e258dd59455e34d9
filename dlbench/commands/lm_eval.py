"""`dlbench lm-eval`."""

from __future__ import annotations

import sys
from typing import Any

import typer

from dlbench.errors import DlbenchError
from dlbench.registry.plugin_code import guilty
from dlbench.system import stopping

PASSED_ON: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a command whose arguments another program reads."""


def lm_eval(context: typer.Context) -> None:
    """Run lm-eval's own command line, which then knows `--model dlbench`.

    All arguments are lm-eval's: --model dlbench --model_args pretrained=nano,method=static_skip,budget=0.5 --tasks …
    """
    from dlbench.lm_eval_model import register

    register()
    from lm_eval.__main__ import cli_evaluate

    before = sys.argv
    sys.argv = ["lm-eval", *context.args]
    try:
        with stopping.by_default():
            cli_evaluate()
    except SystemExit as end:  # of argparse
        raise typer.Exit(end.code if isinstance(end.code, int) else int(end.code is not None)) from None
    except DlbenchError:
        raise
    except Exception as error:
        if (failure := guilty(error)) is not None:
            raise failure from error
        raise DlbenchError(f"lm-eval: {type(error).__name__}: {error} (--debug shows the traceback)") from error
    finally:
        sys.argv = before
