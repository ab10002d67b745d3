"""What is published works: the wheel, built here, in an environment that knows nothing of this checkout."""

import json
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [pytest.mark.once, pytest.mark.timeout(300)]

FIRST_STEPS = """
import tracebus
from tracebus import log_to_stdout, subscribe, traced

log_to_stdout(format="json")
heard = []
subscribe(lambda sender, event: heard.append(event.run.name))

@traced(kind="llm")
def generate(prompt):
    return "hello"

@traced
def answer(question):
    return generate(question)

assert answer("hi") == "hello"
assert heard == ["answer", "generate", "generate", "answer"], heard
"""

RUN = "import tracebus\n@tracebus.traced\ndef answer(): pass\nanswer()"

FIRST_TEST = """
from tracebus import traced

@traced
def answer(question):
    return "hello"

def test_answer(recorded):
    answer("hi")
    assert [run.name for run in recorded.runs] == ["answer"]
"""


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    command = tuple(map(str, command))
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source distribution and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    return out


@pytest.fixture
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tracebus").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "tracebus/py.typed" in names
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_the_source_distribution_holds_what_its_tests_need(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Makefile", "LICENSE", "CHANGELOG.md", ".ci/python", "tests/test_wheel.py"} <= names
    assert not [name for name in names if name.startswith((".venv/", ".git/"))]


def test_the_wheel_works_outside_the_checkout(wheel: Path, clean_env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "first_steps.py").write_text(FIRST_STEPS)
    (tmp_path / "test_first.py").write_text(FIRST_TEST)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = (python, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    del clean_env["PYTHONPATH"]

    run(*install, wheel)
    lines = run(python, "-W", "error", "first_steps.py", env=clean_env, cwd=tmp_path).splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["answer", "generate", "generate", "answer"]

    command = python.with_name("tracebus")
    lines = run(command, "run", "--log-to", "stdout", "-c", RUN, env=clean_env, cwd=tmp_path).splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["chain_start", "chain_end"]
    assert 'pip install "tracebus[cli]"' in run(command, "--help", env=clean_env)

    run(*install, "pytest")
    assert "1 passed" in run(python, "-m", "pytest", "-q", "-W", "error", env=clean_env, cwd=tmp_path)
