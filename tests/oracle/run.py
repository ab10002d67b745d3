"""Run langchain-core's own unit tests without and with tracebus, and compare what the bridge says with what its tracer says.

They come from the source distribution of the version that is installed, and run as they are. ``make test-langchain`` makes the
environment; arguments go to pytest, as in ``make test-langchain ARGS="-k runnable"``.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from both_tracers import EXPLAINED

HERE = Path(__file__).parent
VERSION = importlib.metadata.version("langchain-core")
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header"]
OPTIONS = ["--benchmark-disable", "--disable-socket", "--allow-unix-socket"]  # as langchain-core's own Makefile has them
WORKERS = ["-n", "auto", "--maxprocesses", "4"]


def fetched(kept: Path) -> Path:
    """Return the folder with the tests of the installed version, fetched once."""
    folder = kept / f"langchain_core-{VERSION}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as download:
            pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check", "--no-deps", "-d", download]
            subprocess.run([*pip, "--no-binary", "langchain-core", f"langchain-core=={VERSION}"], check=True)
            (archive,) = Path(download).glob("*.tar.gz")
            with tarfile.open(archive) as source:
                wanted = [one for one in source if one.name.split("/")[1] in ("tests", "pyproject.toml")]
                source.extractall(kept, members=wanted, filter="data")
    return folder


def outcomes(folder: Path, *options: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """Run the tests; return how each ended."""
    with tempfile.TemporaryDirectory() as out:
        report = Path(out) / "report.xml"
        command = [*PYTEST, *OPTIONS, f"--junitxml={report}", *options]
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("LANGCHAIN", "LANGSMITH", "PYTEST"))
        }
        done = subprocess.run(command, cwd=folder, env=clean | (env or {}), capture_output=True, encoding="utf-8", check=False)
        if not report.exists():
            sys.exit(done.stdout + done.stderr)
        return {
            f"{case.get('classname')}::{case.get('name')}": _outcome(case)
            for case in ElementTree.parse(report).iter("testcase")
        }


def _outcome(case: ElementTree.Element) -> str:
    return next((part.tag for part in case if part.tag in ("failure", "error", "skipped")), "passed")


def compared(out: Path) -> dict[str, Any]:
    """Add up what the workers found."""
    total: dict[str, Any] = {"runs": 0, "agreed": 0, "known": Counter(), "unknown": []}
    for path in out.glob("*.json"):
        found = json.loads(path.read_text("utf-8"))
        for name in ("runs", "agreed"):
            total[name] += found[name]
        total["known"].update(found["known"])
        total["unknown"] += found["unknown"]
    return total


COUNTS_HANDLERS = {
    "tests.unit_tests.runnables.test_config::test_merge_config_callbacks": (
        "counts the handlers of a call: an installed one is one more"
    ),
}
"""Tests that cannot pass with any handler that is installed for the process."""


def main() -> int:
    folder = fetched(Path(sys.prefix) / "oracle")
    tests = ["tests/unit_tests", *WORKERS, *sys.argv[1:]]
    env = {"PYTHONPATH": str(HERE)}
    without, bridged = outcomes(folder, *tests), outcomes(folder, "-p", "bridge_only", *tests, env=env)
    with tempfile.TemporaryDirectory() as out:
        outcomes(folder, "-p", "both_tracers", *tests, env=env | {"TRACEBUS_ORACLE": out})
        found = compared(Path(out))
    broken = [
        test for test in bridged if bridged[test] in ("failure", "error") and without.get(test) not in ("failure", "error")
    ]
    failing = [test for test in broken if test not in COUNTS_HANDLERS and still_fails(folder, test, env)]

    print(f"langchain-core {VERSION}: {said(without)} without tracebus, {said(bridged)} with it")
    print(*(f"     1  {why}" for test, why in COUNTS_HANDLERS.items() if test in broken), sep="\n")
    print(f"{found['runs']} runs, {found['agreed']} of them told alike; told otherwise, on purpose:")
    print(*(f"{found['known'][name]:6}  {why}" for name, (why, _) in EXPLAINED.items()), sep="\n")
    print(*(f"✗ {test} fails with tracebus" for test in failing), *(f"✗ {one}" for one in found["unknown"]), sep="\n")
    return 1 if failing or found["unknown"] or not found["runs"] else 0


def still_fails(folder: Path, test: str, env: dict[str, str]) -> bool:
    """Run a test that failed again, by itself and at most three times: some of them measure time."""
    path = test.partition("::")[0].replace(".", "/")
    while not (folder / f"{path}.py").exists():  # a class is a part of the name
        path = path.rpartition("/")[0]
    name = test.partition("::")[2].partition("[")[0]
    again = (outcomes(folder, f"{path}.py", "-k", name, "-p", "bridge_only", env=env) for _ in range(3))
    return all({"failure", "error"} & set(found.values()) for found in again)


def said(found: dict[str, str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(found.values()).items()))


if __name__ == "__main__":
    sys.exit(main())
