"""Where all must run (CI=true), a skipped test is a failure; elsewhere it is a skip."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

SKIPPED = {
    "in a test": "import pytest\ndef test(): pytest.skip('no server')",
    "by a mark": "import pytest\n@pytest.mark.skipif(True, reason='no server')\ndef test(): ...",
    "by a fixture": "import pytest\n@pytest.fixture\ndef f(): pytest.skip('no server')\ndef test(f): ...",
    "in a module": "import pytest\npytest.importorskip('no_server')\ndef test(): ...",
}
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail(reason='no server')\ndef test(): assert False"


@pytest.fixture
def outcome(run_python: Callable, tmp_path: Path) -> Callable[[str, str], str]:
    """Return a function that runs a source file as a test and gives pytest's last words."""
    for name in ("conftest.py", "gates.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)

    def run(source: str, ci: str) -> str:
        (tmp_path / "test_it.py").write_text(source)
        env = {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return run_python("-m", "pytest", "-q", env=env, check=False).stdout.splitlines()[-1]

    return run


@pytest.mark.parametrize("source", SKIPPED.values(), ids=SKIPPED)
def test_a_skip_is_a_failure_where_all_must_run(source: str, outcome: Callable[[str, str], str]) -> None:
    assert outcome(source, "true").startswith(("1 failed", "1 error"))


@pytest.mark.parametrize("source", SKIPPED.values(), ids=SKIPPED)
def test_a_skip_is_a_skip_elsewhere(source: str, outcome: Callable[[str, str], str]) -> None:
    assert outcome(source, "").startswith("1 skipped")


def test_an_expected_failure_stays_one(outcome: Callable[[str, str], str]) -> None:
    assert outcome(EXPECTED_FAILURE, "true").startswith("1 xfailed")
