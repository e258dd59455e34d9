"""Run the command line as `python -m dlbench`."""

import sys

from dlbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
