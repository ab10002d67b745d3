"""``tracebus bootstrap-path``, and the directory that it prints."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Final

__all__ = ["BOOTSTRAP", "main"]

BOOTSTRAP: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bootstrap")
"""The directory whose ``sitecustomize`` starts tracing."""


def main(arguments: Sequence[str]) -> int:
    """Print the directory."""
    ArgumentParser("tracebus bootstrap-path", description=__doc__).parse_args(arguments)
    print(BOOTSTRAP)
    return 0
