"""One torch thread: the models are tiny, and several threads on a busy machine wait for each other at every operation.
Subprocesses inherit it.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
