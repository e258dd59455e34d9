"""Keep what libraries log about themselves off the terminal."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_data_libraries() -> Iterator[None]:
    """Silence lm-eval's warnings about its own defaults, the hub's retries, and progress bars over files."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels, bars = [logger.level for logger in loggers], datasets.utils.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if not bars:
            datasets.utils.enable_progress_bars()


@contextlib.contextmanager
def quiet_torchao() -> Iterator[None]:
    """Silence torchao's warnings about kernels for other machines; transformers imports it wherever it is installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
