"""``tracebus bootstrap-path``, and the directory that it prints."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["BOOTSTRAP", "main"]

BOOTSTRAP: Final = str(Path(__file__).parent.parent / "bootstrap")
"""The directory whose ``sitecustomize`` starts tracing."""


def main(arguments: Sequence[str]) -> int:
    """Print the directory."""
    ArgumentParser("tracebus bootstrap-path", description=__doc__).parse_args(arguments)
    print(BOOTSTRAP)
    return 0
