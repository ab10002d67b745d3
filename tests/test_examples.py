"""Every file in examples/ runs as a user would run it: without a key, a setting or a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, run_python: Callable) -> None:
    run_python(path, cwd=ROOT)
