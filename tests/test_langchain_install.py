"""Where the bridge cannot be: LangChain is not there, or has no place for it."""

from collections.abc import Callable

import pytest

pytestmark = pytest.mark.once

MISSING = """
import sys
sys.modules["langchain_core"] = None
try:
    import tracebus.integrations.langchain
except ImportError as error:
    print(type(error).__name__, error)
"""

MOVED = """
import sys, logging
logging.basicConfig(format="%(message)s", stream=sys.stdout)
import langchain_core.tracers.context as context
{change}
from langchain_core.runnables import RunnableLambda
from tracebus import subscribe
from tracebus.integrations.langchain import TracebusHandler, install
heard = []
subscribe(lambda sender, event: heard.append(event.signal_name))
install()
install()
print(RunnableLambda(str).invoke(7), heard)
print(RunnableLambda(str).invoke(7, {{"callbacks": [TracebusHandler()]}}), heard)
"""

CHANGES = {
    "moved": "del context.register_configure_hook",
    "of other arguments": "context.register_configure_hook = lambda handler: None",
}


def test_a_missing_langchain_says_what_to_install(run_python: Callable) -> None:
    said = run_python("-c", MISSING).stdout
    assert said == 'MissingExtraError LangChain is not installed: pip install "tracebus[langchain]"\n'


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_version_with_its_hook_elsewhere_is_named_once_and_the_app_runs_on(change: str, run_python: Callable) -> None:
    warning, untraced, traced = run_python("-c", MOVED.format(change=change)).stdout.splitlines()
    assert warning.startswith("langchain-core 1.")
    assert "are not traced" in warning
    assert untraced == "7 []"
    assert traced == "7 ['chain_start', 'chain_end']"


def test_the_core_does_not_load_langchain(run_python: Callable) -> None:
    code = "import sys, tracebus; print([name for name in sys.modules if name.startswith('langchain')])"
    assert run_python("-c", code).stdout == "[]\n"
