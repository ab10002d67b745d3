"""A library's import is noticed once its code has run, and who imports it cannot tell; integrations never hurt the app."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tracebus.cli.bootstrap_path import BOOTSTRAP

RunPython = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parent.parent

# An integration as another package has it: an entry point named after the module that is watched for.
INTEGRATION = """
import sys
def install():
    library = sys.modules["somelib"]
    print("installed", library.VALUE, library.__spec__.name)
"""
METADATA = "Metadata-Version: 2.1\nName: somelib-tracebus\nVersion: 1.0\n"


def write(directory: Path, files: dict[str, str]) -> None:
    for name, source in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(source)


def integrate(directory: Path, points: str = "somelib = somelib_tracebus", source: str = INTEGRATION) -> None:
    write(
        directory,
        {
            "somelib_tracebus.py": source,
            "somelib_tracebus-1.0.dist-info/METADATA": METADATA,
            "somelib_tracebus-1.0.dist-info/entry_points.txt": f"[tracebus.integrations]\n{points}\n",
        },
    )


@pytest.fixture
def traced_python(run_python: RunPython, tmp_path: Path) -> RunPython:
    """`python` with the bootstrap, and no log lines, in a directory with a library and its integration."""
    write(tmp_path, {"somelib/__init__.py": "VALUE = 7\n", "somelib/part.py": ""})
    integrate(tmp_path)
    # An installed package's entry points: the program's own directory is on the path, too late for `-c` only.
    paths = os.pathsep.join([BOOTSTRAP, str(tmp_path), str(ROOT)])

    def run(*args: str | Path, env: dict[str, str] | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        return run_python(*args, env={"PYTHONPATH": paths, "TRACEBUS_LOG": "off"} | (env or {}), **options)

    return run


# -- noticing ----------------------------------------------------------------------------------------------------------


def test_an_integration_is_installed_when_its_library_has_been_imported(traced_python: RunPython) -> None:
    done = traced_python("-c", "print('before'); import somelib; print('after')")
    assert done.stdout.split("\n") == ["before", "installed 7 somelib", "after", ""]


@pytest.mark.parametrize("how", ["import somelib.part", "from somelib import part", "__import__('somelib')"])
def test_it_is_installed_once_however_the_library_is_imported(how: str, traced_python: RunPython) -> None:
    done = traced_python("-c", f"{how}; import somelib, importlib; importlib.import_module('somelib')")
    assert done.stdout == "installed 7 somelib\n"


def test_a_library_that_is_only_looked_for_is_not_imported(traced_python: RunPython) -> None:
    code = (
        "import sys; from importlib.util import find_spec; print(find_spec('somelib').origin[-11:], 'tracebus' in sys.modules)"
    )
    assert traced_python("-c", code).stdout.split() == ["__init__.py", "False"]


def test_a_spec_that_was_looked_for_can_be_loaded(traced_python: RunPython) -> None:
    code = (
        "import sys\nfrom importlib.util import find_spec, module_from_spec\n"
        "spec = find_spec('somelib'); find_spec('somelib')\nmodule = module_from_spec(spec)\n"
        "sys.modules['somelib'] = module\nspec.loader.exec_module(module)\nprint(module.VALUE)"
    )
    assert traced_python("-c", code).stdout == "installed 7 somelib\n7\n"


def test_a_library_that_is_loaded_late_is_traced_when_it_is_loaded(traced_python: RunPython) -> None:
    code = (
        "import importlib.util as u, sys\nspec = u.find_spec('somelib')\nspec.loader = u.LazyLoader(spec.loader)\n"
        "module = sys.modules['somelib'] = u.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "print('not yet')\nmodule.VALUE"
    )
    assert traced_python("-c", code).stdout == "not yet\ninstalled 7 somelib\n"


def test_a_library_in_a_zip_file_is_traced(traced_python: RunPython, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "libs.zip", "w") as archive:
        archive.writestr(
            "zipped.py", "import sys; VALUE = 'zipped'; sys.modules['somelib'] = sys.modules[__name__]; import other"
        )
        archive.writestr("other.py", "")
    integrate(tmp_path, "zipped = somelib_tracebus")
    done = traced_python(
        "-c", "import sys; sys.path.insert(0, 'libs.zip'); import zipped; print(type(zipped.__loader__).__name__)"
    )
    assert done.stdout == "installed zipped zipped\nzipimporter\n"


def test_what_is_frozen_into_python_loads_as_ever(traced_python: RunPython, tmp_path: Path) -> None:
    integrate(tmp_path, "__phello__ = somelib_tracebus")  # its loader is a class, which all such modules share
    done = traced_python("-c", "import somelib, __phello__, __phello__.spam, __hello__; print(__phello__.main.__name__)")
    assert (done.stdout, done.stderr) == ("main\n", "")


def test_modules_and_loaders_are_as_they_would_be(traced_python: RunPython, run_python: RunPython) -> None:
    code = (
        "import somelib, inspect\nloader = somelib.__loader__\n"
        "print(type(loader), vars(loader), somelib.__spec__.loader is loader, vars(somelib.__spec__).keys())\n"
        "print(inspect.getsource(somelib), sorted(vars(somelib)))"
    )
    plain = run_python("-c", code)
    assert traced_python("-c", code).stdout == f"installed 7 somelib\n{plain.stdout}"


def test_a_package_of_the_app_s_own_with_a_library_s_name_is_left_alone(traced_python: RunPython, tmp_path: Path) -> None:
    write(tmp_path, {"agents/__init__.py": "def answer(): return 42\n"})
    done = traced_python("-c", "import agents, sys; print(agents.answer(), 'tracebus' in sys.modules)")
    assert (done.stdout, done.stderr) == ("42 False\n", "")


def test_reloading_does_what_it_does(traced_python: RunPython) -> None:
    code = "import importlib, somelib; somelib.VALUE = 8; print(importlib.reload(somelib).VALUE)"
    assert traced_python("-c", code).stdout == "installed 7 somelib\n7\n"


def test_two_threads_that_import_at_once_install_once(traced_python: RunPython) -> None:
    code = (
        "import threading\nbarrier = threading.Barrier(4)\ndef load():\n barrier.wait()\n import somelib, tracebus\n"
        "ts = [threading.Thread(target=load) for _ in range(4)]\n[t.start() for t in ts]\n[t.join() for t in ts]"
    )
    assert traced_python("-c", code).stdout == "installed 7 somelib\n"


def test_what_was_imported_before_is_traced_at_once(traced_python: RunPython, tmp_path: Path) -> None:
    start = f"sys.path.insert(0, {BOOTSTRAP!r}); import tracebus_bootstrap; tracebus_bootstrap.watch()"
    code = f"import sys, somelib; print('on'); {start}; import json5"
    write(tmp_path, {"json5.py": "print('another')"})
    done = traced_python("-c", code, env={"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])})
    assert done.stdout == "on\ninstalled 7 somelib\nanother\n"


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only", "expected"), [("somelib", "installed 7 somelib\n"), ("openai, litellm", "")])
def test_only_what_is_named_is_installed(only: str, expected: str, traced_python: RunPython) -> None:
    assert traced_python("-c", "import somelib", env={"TRACEBUS_ONLY": only}).stdout == expected


def test_an_unknown_name_in_the_environment_is_said_once(traced_python: RunPython) -> None:
    done = traced_python("-c", "import tracebus, somelib", env={"TRACEBUS_ONLY": "opnai,somelib"})
    expected = "TRACEBUS_ONLY has names of nothing that could be traced: opnai\n"
    assert (done.stdout, done.stderr) == ("installed 7 somelib\n", expected)


def test_the_names_of_other_packages_are_known_to_the_command(traced_python: RunPython) -> None:
    done = traced_python("-m", "tracebus", "run", "--only", "somelib", "-c", "import somelib")
    assert done.stdout == "installed 7 somelib\n"


def test_an_integration_can_be_an_object_in_a_module(traced_python: RunPython, tmp_path: Path) -> None:
    source = "class hooks:\n @staticmethod\n def install(): print('from an object')\n"
    integrate(tmp_path, "somelib = somelib_tracebus:hooks", source)
    assert traced_python("-c", "import somelib").stdout == "from an object\n"


# -- going wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def install(): raise AttributeError('OpenAI.request is gone')", "AttributeError('OpenAI.request is gone')"),
        ("def install(): raise SystemExit(3)", "SystemExit(3)"),
        ("import not_installed", "ModuleNotFoundError"),
        ("x = (", "SyntaxError"),
        ("", "AttributeError"),
    ],
)
def test_an_integration_that_fails_is_one_warning_with_the_version(
    source: str, says: str, traced_python: RunPython, tmp_path: Path
) -> None:
    integrate(tmp_path, source=source)
    done = traced_python("-c", "import somelib; import somelib.part; print(somelib.VALUE)")
    assert (done.stdout, done.stderr.count("\n")) == ("7\n", 1)
    assert done.stderr.startswith(
        "somelib-tracebus 1.0 is not traced, and the app goes on without: somelib_tracebus could not be"
    )
    assert says in done.stderr


def test_a_log_format_that_is_none_is_said_and_the_program_goes_on(traced_python: RunPython) -> None:
    done = traced_python("-c", "import tracebus; print('on')", env={"TRACEBUS_LOG": "xml"})
    assert (done.stdout, done.stderr.count("\n")) == ("on\n", 1)
    assert "unknown format 'xml': choose one of" in done.stderr


def test_a_log_file_that_cannot_be_opened_is_said_and_the_program_goes_on(traced_python: RunPython, tmp_path: Path) -> None:
    env = {"TRACEBUS_LOG": "json", "TRACEBUS_LOG_TO": str(tmp_path / "no" / "dir" / "x.log")}
    done = traced_python("-c", "import tracebus; print('on')", env=env)
    assert (done.stdout, done.stderr.count("\n")) == ("on\n", 1)
    assert done.stderr.startswith("no log lines are written, and the app goes on without: FileNotFoundError")


def test_after_giving_up_what_was_being_imported_is_imported(traced_python: RunPython, tmp_path: Path) -> None:
    write(tmp_path, {"blinker.py": "1 / 0", "openai.py": "import somelib", "litellm.py": "import openai"})
    done = traced_python("-c", "import litellm, openai; print(openai.somelib.VALUE)")
    assert (done.stdout, done.stderr.count("\n")) == ("7\n", 1)


UNCOPYABLE = """
import importlib.machinery, importlib.util, sys
class Loader(importlib.machinery.SourceFileLoader):
    def __reduce_ex__(self, protocol):
        raise TypeError("I am the only one")
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        path = "somelib/__init__.py"
        if name == "somelib":
            return importlib.util.spec_from_file_location(name, path, loader=Loader(name, path))
sys.meta_path.insert(1, Finder())
import somelib
print(type(somelib.__loader__).__name__, somelib.VALUE)
"""


def test_a_library_whose_loader_is_not_like_others_is_imported_untraced(traced_python: RunPython) -> None:
    done = traced_python("-c", UNCOPYABLE)
    expected = "tracebus: nothing is traced in this process: TypeError('I am the only one')\n"
    assert (done.stdout, done.stderr) == ("Loader 7\n", expected)


def test_metadata_that_cannot_be_read_is_said_and_the_rest_is_traced(traced_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "somelib_tracebus-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff [tracebus.integrations]")
    done = traced_python("-c", "import somelib, tracebus, sys; print('tracebus.instrumentation' in sys.modules)")
    assert (done.stdout, done.stderr.count("\n")) == ("True\n", 1)
    assert done.stderr.startswith("tracebus: what other packages can trace is not known: UnicodeDecodeError")


def test_a_python_without_tracebus_runs_as_ever(traced_python: RunPython, tmp_path: Path) -> None:
    done = traced_python("-S", "-c", "import somelib", env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout == ""
    bare = [sys.executable, "-s", "-c", "import somelib, sys; print(somelib.VALUE, sys.path[1] == sys.argv[1])", str(tmp_path)]
    env = {"PYTHONPATH": os.pathsep.join([BOOTSTRAP, str(tmp_path)]), "PATH": os.environ["PATH"]}
    # Our own development environment has tracebus on its path; the Python that it was made with has not.
    bare[0] = str(getattr(sys, "_base_executable", sys.executable))
    found = subprocess.run(bare, env=env, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert (found.stdout, found.stderr, found.returncode) == ("7 True\n", "", 0)


def test_a_tracebus_that_cannot_be_imported_is_one_line(traced_python: RunPython, tmp_path: Path) -> None:
    write(tmp_path, {"blinker.py": "raise RuntimeError('not the blinker you expect')\n"})
    done = traced_python("-c", "import somelib; import somelib.part; print(somelib.VALUE)")
    expected = "tracebus: nothing is traced in this process: RuntimeError('not the blinker you expect')\n"
    assert (done.stdout, done.stderr) == ("7\n", expected)


# -- the sitecustomize that it hides -----------------------------------------------------------------------------------


def test_the_sitecustomize_that_it_hides_runs(traced_python: RunPython, tmp_path: Path) -> None:
    write(tmp_path, {"sitecustomize.py": "HIDDEN = True\n"})
    code = "import sitecustomize, sys; print(sitecustomize.HIDDEN, sitecustomize.__file__); import somelib"
    assert traced_python("-c", code).stdout == f"True {tmp_path / 'sitecustomize.py'}\ninstalled 7 somelib\n"


def test_what_the_hidden_one_raises_is_said_as_ever(traced_python: RunPython, run_python: RunPython, tmp_path: Path) -> None:
    write(tmp_path, {"sitecustomize.py": "raise KeyError('broken')\n"})
    plain = run_python("-c", "pass", env={"PYTHONPATH": str(tmp_path)})
    done = traced_python("-c", "pass")
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    assert "Error in sitecustomize" in done.stderr


def test_where_none_is_hidden_there_is_none(traced_python: RunPython) -> None:
    code = "import sys; print('sitecustomize' in sys.modules, [p for p in sys.path if 'bootstrap' in p])\nimport sitecustomize"
    done = traced_python("-c", code, check=False)
    assert done.stdout == "False []\n"
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'sitecustomize'\n")


def test_a_directory_that_is_on_the_path_by_two_names_starts_it_once(traced_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(BOOTSTRAP)
    paths = os.pathsep.join([BOOTSTRAP, str(tmp_path / "link"), BOOTSTRAP, str(tmp_path), str(ROOT)])
    done = traced_python("-c", "import somelib, sys; print(str(sys.path).count('bootstrap'))", env={"PYTHONPATH": paths})
    assert (done.stdout, done.stderr) == ("installed 7 somelib\n0\n", "")
