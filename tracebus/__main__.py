"""``python -m tracebus``, which is the command ``tracebus``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
