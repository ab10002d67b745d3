"""The `tracebus` command: which commands there are, what is loaded for them, and what it says without its extra."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tracebus
from tracebus.cli import COMMANDS, load, main
from tracebus.cli.bootstrap_path import BOOTSTRAP
from tracebus.cli.run import OPTIONS
from tracebus.errors import TracebusError

pytestmark = pytest.mark.once

RunPython = Callable[..., subprocess.CompletedProcess[str]]

# `python -c` with these is a `tracebus` in an environment without the extra.
WITHOUT_EXTRA = "import sys; sys.modules['typer'] = None; from tracebus.cli import main; sys.exit(main())"


def complete(run_python: RunPython, words: str) -> list[str]:
    """What the shell is offered after `words`."""
    env = {"_TRACEBUS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return run_python("-m", "tracebus", env=env).stdout.split()


# -- with the extra ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("--help",), ()])
def test_help_lists_every_command(arguments: tuple[str, ...], run_python: RunPython) -> None:
    done = run_python("-m", "tracebus", *arguments, check=False)
    words = (done.stdout + done.stderr).split()
    assert [name for name in COMMANDS if name not in words] == []
    assert done.returncode == (0 if arguments else 2)


def test_the_version_is_the_package_s(run_python: RunPython) -> None:
    assert run_python("-m", "tracebus", "--version").stdout == f"tracebus {tracebus.__version__}\n"


def test_an_unknown_command_is_a_wrong_call_and_a_near_one_is_named(run_python: RunPython) -> None:
    done = run_python("-m", "tracebus", "integration", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'integrations'?" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_it_is_looked_for_and_explains_itself(name: str, run_python: RunPython) -> None:
    assert callable(load(name).main if COMMANDS[name].is_light else load(name).command)
    assert f"sage: tracebus {name}" in run_python("-m", "tracebus", name, "--help").stdout


def test_help_loads_no_command(run_python: RunPython) -> None:
    code = (
        "import sys\nfrom tracebus.cli import COMMANDS, main\n"
        "try:\n main(['--help'])\nexcept SystemExit:\n pass\n"
        "print([name for name in COMMANDS if f'tracebus.cli.{name}' in sys.modules and not COMMANDS[name].is_light])"
    )
    assert run_python("-c", code).stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("tracebus boot", ["bootstrap-path"]),
        ("tracebus run --log-", ["--log-to"]),
        ("tracebus run --log ", ["console", "json", "off"]),
        ("tracebus run --t", ["--tokens"]),
    ],
)
def test_the_shell_completes(words: str, offered: list[str], run_python: RunPython) -> None:
    assert complete(run_python, words) == offered


def test_the_shell_knows_every_option_of_run(run_python: RunPython) -> None:
    assert set(complete(run_python, "tracebus run --")) == {option.name for option in OPTIONS} | {"--help"}


def test_integrations_says_what_is_installed(run_python: RunPython) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in run_python("-m", "tracebus", "integrations").stdout.splitlines()}
    assert rows["openai"][0] == "openai"
    assert rows["openai"][1][0].isdigit()
    assert rows["langchain"][0] == "langchain-core"


def test_bootstrap_path_prints_the_directory_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bootstrap-path"]) == 0
    assert capsys.readouterr().out == BOOTSTRAP + "\n"
    assert (Path(BOOTSTRAP) / "sitecustomize.py").is_file()


def test_a_failure_is_a_line_and_exits_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(arguments: list[str]) -> int:
        raise TracebusError("the store is in use")

    monkeypatch.setattr(load("bootstrap-path"), "main", fail)
    assert main(["bootstrap-path"]) == 1
    assert capsys.readouterr().err == "tracebus: the store is in use\n"


@pytest.mark.skipif(sys.platform == "win32", reason="installed as .exe there, elsewhere")
def test_the_console_script_and_the_module_are_the_same(run_python: RunPython, clean_env: dict[str, str]) -> None:
    script = Path(sys.executable).with_name("tracebus")
    done = subprocess.run([script, "bootstrap-path"], env=clean_env, capture_output=True, encoding="utf-8")
    assert done.stdout == run_python("-m", "tracebus", "bootstrap-path").stdout


# -- without it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.is_light])
def test_without_the_extra_a_command_says_how_to_get_it(name: str, run_python: RunPython) -> None:
    done = run_python("-c", WITHOUT_EXTRA, name, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f'tracebus {name}: this needs typer and rich: pip install "tracebus[cli]"\n'


def test_without_the_extra_help_lists_what_works(run_python: RunPython) -> None:
    lines = run_python("-c", WITHOUT_EXTRA, "--help").stdout.splitlines()
    light = [name for name, command in COMMANDS.items() if command.is_light]
    assert [line.split()[0] for line in lines[2:-2]] == light
    assert lines[-1] == 'There are more with pip install "tracebus[cli]".'


def test_without_the_extra_programs_run(run_python: RunPython) -> None:
    assert run_python("-c", WITHOUT_EXTRA, "run", "-c", "print(1)").stdout.strip() == "1"


def test_a_light_command_has_its_own_completion_only_by_the_app(run_python: RunPython) -> None:
    assert "_TRACEBUS_COMPLETE" not in os.environ
    assert run_python("-m", "tracebus", "run", "-c", "print(2)").stdout.strip() == "2"
