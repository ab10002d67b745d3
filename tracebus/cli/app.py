"""The commands that are written with typer, as one app: its help, its completion, and how a command is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal, TypeAlias

from ..errors import MissingExtraError

try:
    import typer
    from typer.core import TyperCommand, TyperGroup
except ImportError as error:
    raise MissingExtraError('this needs typer and rich: pip install "tracebus[cli]"') from error

from . import COMMANDS, load
from .run import OPTIONS, Option

__all__ = ["main"]


class _Commands(TyperGroup):
    """All commands by name and help; only the one that is called is loaded."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=command.help) for name, command in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that ``args`` start with, loaded."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else _loaded(name), rest


def _loaded(name: str) -> Any:
    function = _completed(name) if COMMANDS[name].is_light else load(name).command
    return typer.main.get_command(_app_of(name, function))


def _app_of(name: str, function: Callable[..., object]) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, help=COMMANDS[name].help)(function)
    return app


def _completed(name: str) -> Callable[..., object]:
    """Return a function with the parameters of a command that is not written with typer, for the shell's completion."""

    def function(**_: object) -> None: ...

    parameters = [_parameter(option) for option in OPTIONS] if name == "run" else []
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return function


def _parameter(option: Option) -> Parameter:
    kind: Any = bool if option.is_flag else Literal[option.choices] if option.choices else str
    return Parameter(
        option.variable,
        Parameter.KEYWORD_ONLY,
        default=False if option.is_flag else None,
        annotation=Annotated[kind if option.is_flag else kind | None, typer.Option(option.name, help=option.help)],
    )


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        print("tracebus", version("tracebus"))
        raise typer.Exit


_Version: TypeAlias = Annotated[
    bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
]


@app.callback(help="Trace LLM apps: run them, and look at what they did.")
def _tracebus(version: _Version = False) -> None: ...


def main(arguments: Sequence[str]) -> int:
    """Do what ``arguments`` say; exit with 2 for a wrong call."""
    app(list(arguments), prog_name="tracebus")
    return 0
