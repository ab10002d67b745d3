"""``tracebus integrations``: the libraries that are traced, by the names that ``tracebus run --only`` knows them by."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

from ..bootstrap.tracebus_bootstrap import LIBRARIES, third_party_libraries

__all__ = ["command"]


def command() -> None:
    """Print a line for each."""
    table = Table("name", "library", "installed", "integration", "traced", box=None, pad_edge=False)
    for name, library in sorted((LIBRARIES | third_party_libraries()).items()):
        traced = "if named" if library.by_name else "always"
        table.add_row(name, library.distribution, _version_of(library.distribution), library.integration, traced)
    Console().print(table)


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "no"
