"""What holds for all tests: one torch thread, and no hub.

The models are tiny, and several threads on a busy machine wait for each other at every operation. Subprocesses inherit
the settings.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
