"""The ``tracebus`` command: which commands there are, and which file is loaded for each.

A command is a module of this package, imported when it is asked for. One that is light has ``main(arguments)``, and needs
nothing but tracebus. The others have ``command``, a function for typer, and need ``tracebus[cli]``; what they share is in
``app``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import Any, Final, NamedTuple

from ..errors import ArgumentError, MissingExtraError, TracebusError

__all__ = ["COMMANDS", "Command", "load", "main"]


class Command(NamedTuple):
    """A command as the list of commands shows it."""

    help: str
    is_light: bool = False


COMMANDS: Final[dict[str, Command]] = {
    "run": Command("Run a Python program with its model calls traced.", is_light=True),
    "bootstrap-path": Command("Print what traces any Python when it is on PYTHONPATH.", is_light=True),
    "ls": Command("List traces, the latest first."),
    "show": Command("Show a trace as a tree: how long each run took, with how many tokens, at what cost."),
    "tail": Command("Follow what is going on, in this and in other processes, until Ctrl-C."),
    "ui": Command("Show all of it in the browser, live."),
    "search": Command("Search in what went into runs, what came out, and in errors."),
    "stats": Command("Show how many runs there were, how fast, with how many tokens, at what cost."),
    "replay": Command("Say a stored trace on the bus again."),
    "export": Command("Write traces as JSON lines, or send them over OTLP."),
    "import": Command("Put exported traces into the store."),
    "prune": Command("Remove old traces."),
    "delete": Command("Delete traces so that nothing of them is left."),
    "integrations": Command("List the libraries that are traced, and which of them are installed."),
}


def load(name: str) -> Any:
    """Import the module of a command."""
    return import_module(f"{__name__}.{name.replace('-', '_')}{'_' if iskeyword(name) else ''}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code: 0, 1 for a failure, 2 for a wrong call."""
    arguments = sys.argv[1:] if arguments is None else arguments
    code = 0
    try:
        try:
            code = _do(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        return _without_output(error, is_said=code != 0)
    return code


def _do(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else "--help"
    try:
        if name in COMMANDS and COMMANDS[name].is_light and "_TRACEBUS_COMPLETE" not in os.environ:
            return int(load(name).main(arguments[1:]))
        return int(load("app").main(arguments))
    except MissingExtraError as error:
        return _without_extra(name, error)
    except TracebusError as error:
        print(f"tracebus: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def _without_output(error: OSError, *, is_said: bool) -> int:
    """Say that what was printed arrives nowhere, unless it is said already, but not to `| head`, which has seen enough."""
    if error.filename is not None:  # it is of something else
        raise error
    if not is_said and not isinstance(error, BrokenPipeError):
        print(f"tracebus: standard output cannot be written: {error.strerror or error}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it exits
    return 1


def _without_extra(name: str, error: MissingExtraError) -> int:
    if name == "--help":
        print(_help())
        return 0
    print(f"tracebus {name}: {error}", file=sys.stderr)
    return 1


def _help() -> str:
    commands = [f"  {name:<16} {command.help}" for name, command in COMMANDS.items() if command.is_light]
    more = 'There are more with pip install "tracebus[cli]".'
    return "\n".join(["Usage: tracebus COMMAND [ARGS ...]", "", *commands, "", more])
