"""``tracebus run``: start Python with tracing switched on in it and in every Python that it starts.

The program is run by a Python of its own that takes this one's place, so that whatever can be seen of a program, its
``__main__``, its tracebacks and what signals do to it, is Python's own doing. What is switched on travels in the environment:
see ``bootstrap``.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple, NoReturn

from ..bootstrap.tracebus_bootstrap import LIBRARIES, third_party_libraries
from ..errors import ArgumentError
from ..links import viewer_at
from .bootstrap_path import BOOTSTRAP

__all__ = ["OPTIONS", "Option", "environment", "main", "split"]


class Option(NamedTuple):
    """An option, and the variable that says the same to a process that is started without ``tracebus run``."""

    name: str
    variable: str
    help: str
    metavar: str = ""
    choices: tuple[str, ...] = ()
    alone: str = ""
    """What the option means without a value; one that has this takes a value only after ``=``."""

    @property
    def is_flag(self) -> bool:
        """Whether the option has no value."""
        return not (self.metavar or self.choices)


OPTIONS: Final = (
    Option(
        "--log",
        "TRACEBUS_LOG",
        "how lines are written; not given, console on a terminal, else json",
        choices=("console", "json", "off"),
    ),
    Option("--log-to", "TRACEBUS_LOG_TO", "stdout, stderr or a file to append to; not given, stderr", metavar="WHERE"),
    Option("--tokens", "TRACEBUS_TOKENS", "write the pieces of a streamed answer as they come"),
    Option(
        "--save",
        "TRACEBUS_SAVE",
        "keep every run in the store, with --save=FILE in another one; `tracebus ls` lists what was kept",
        metavar="FILE",
        alone="1",
    ),
    Option(
        "--links",
        "TRACEBUS_LINKS",
        "let lines lead to their run in the viewer that `tracebus ui` serves, with --links=ADDRESS in another one",
        metavar="ADDRESS",
        alone="1",
    ),
    Option(
        "--only",
        "TRACEBUS_ONLY",
        "libraries to trace, such as openai,langchain; not given, all that need not be named",
        metavar="NAMES",
    ),
)

USAGE: Final = "tracebus run [OPTIONS] (FILE | -m MODULE | -c CODE | -) [ARGS ...]"
EPILOG: Final = """\
What follows the options is for python, which runs it as ever: a file, a directory or zip file with a __main__.py, -m, -c,
or - for standard input, after options of its own, such as -u or -X dev. Libraries are traced from when the program
imports them. The processes that it starts are traced, too.

A program that cannot be started this way is traced with PYTHONPATH="$(tracebus bootstrap-path)" in its environment; each
option has a variable:
"""


def main(arguments: Sequence[str]) -> int:
    """Run the program that ``arguments`` name. Returns only where it cannot take this process's place."""
    ours, program = split(arguments)
    chosen = vars(_parser().parse_args(ours)) if ours else {}  # a parser loads what formats its help
    if not program:
        _parser().error("nothing to run: name a file, -m MODULE, -c CODE, or - for standard input")
    try:
        variables = environment(os.environ, chosen)
    except ValueError as error:
        _parser().error(str(error))
    command = [sys.executable, *program]
    return _as_child(command, variables) if os.name == "nt" else _in_our_place(command, variables)


def split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Part our own options from what is for python, which starts where no option of ours does."""
    with_value = {option.name for option in OPTIONS if not (option.is_flag or option.alone)}
    at = 0
    while at < len(arguments) and (arguments[at] == "-h" or arguments[at].startswith("--")):
        if arguments[at] == "--":
            return arguments[:at], arguments[at + 1 :]
        at += 2 if arguments[at] in with_value else 1
    return arguments[:at], arguments[at:]


def _parser() -> ArgumentParser:
    epilog = EPILOG + "\n".join(f"  {option.name:<10} {option.variable}" for option in OPTIONS)
    parser = ArgumentParser(
        "tracebus run",
        usage=USAGE,
        description="Run a Python program with its model calls traced.",
        epilog=epilog,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in OPTIONS:
        kind: dict[str, Any] = {"metavar": option.metavar or None, "choices": option.choices or None}
        if option.alone:
            kind |= {"nargs": "?", "const": option.alone}
        if option.is_flag:
            kind = {"action": "store_const", "const": "1"}
        parser.add_argument(option.name, dest=option.variable, help=option.help, **kind)
    return parser


def environment(outside: Mapping[str, str], chosen: Mapping[str, str | None]) -> dict[str, str]:
    """Return ``outside`` with what traces a program in it; raise ValueError for a choice that cannot be kept.

    ``chosen`` has the values of options by the names of their variables. What is not chosen is as it is ``outside``.
    """
    variables = {**outside, **{name: value for name, value in chosen.items() if value is not None}}
    if chosen.get("TRACEBUS_ONLY") is not None:
        _check_names(variables["TRACEBUS_ONLY"])
    if chosen.get("TRACEBUS_LOG_TO") not in (None, "stdout", "stderr"):
        variables["TRACEBUS_LOG_TO"] = _writable(variables["TRACEBUS_LOG_TO"])
    if chosen.get("TRACEBUS_LINKS") not in (None, "1"):
        _check_address(variables["TRACEBUS_LINKS"])
    if chosen.get("TRACEBUS_SAVE") not in (None, "1"):
        variables["TRACEBUS_SAVE"] = os.path.abspath(variables["TRACEBUS_SAVE"])  # the program may change its directory
    variables["PYTHONPATH"] = _with_bootstrap(variables.get("PYTHONPATH"))
    return variables


def _with_bootstrap(path: str | None) -> str:
    there = [entry for entry in path.split(os.pathsep) if entry != BOOTSTRAP] if path else []
    return os.pathsep.join([BOOTSTRAP, *there])


def _check_names(only: str) -> None:
    known = LIBRARIES | third_party_libraries()
    names = [name.strip() for name in only.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"argument --only: unknown {', '.join(map(repr, unknown))}: there are {', '.join(sorted(known))}")


def _check_address(links: str) -> None:
    try:
        viewer_at(links)
    except ArgumentError as error:
        raise ValueError(f"argument --links: {error}") from None


def _writable(path: str) -> str:
    try:
        with open(path, "ab"):
            return os.path.abspath(path)  # the program may change its directory
    except OSError as error:
        raise ValueError(f"argument --log-to: {path!r} cannot be written to: {error.strerror}") from None


def _in_our_place(command: list[str], variables: Mapping[str, str]) -> NoReturn:
    os.execve(command[0], command, variables)


def _as_child(command: list[str], variables: Mapping[str, str]) -> int:
    """Run a child and wait for it: on Windows, the process that is replaced ends at once for whoever waits for it."""
    subprocess = import_module("subprocess")
    child = subprocess.Popen(command, env=variables)
    while True:
        try:
            code: int = child.wait()
            return code
        except KeyboardInterrupt:  # the child has got it, too, and decides
            pass
