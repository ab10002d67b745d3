"""In a notebook: a cell that is run again replaces what it subscribed before, and top-level await works."""

from typing import Any

import pytest

pytest.importorskip("IPython")
pytestmark = pytest.mark.once

SESSION = """
import warnings
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()

def run(*cells):
    for cell in cells:
        result = shell.run_cell(cell, store_history=True)
        result.raise_error()

run("import tracebus", "heard = []")
"""


def in_notebook(run_python: Any, *cells: str, tail: str) -> str:
    code = SESSION + "\n".join(f"run({cell!r})" for cell in cells) + f"\nrun({tail!r})"
    return str(run_python("-c", code).stdout).strip().splitlines()[-1]


FUNCTION = "@tracebus.text.connect\ndef show(sender, event):\n    heard.append(event.text)"
EDITED = "@tracebus.text.connect\ndef show(sender, event):\n    heard.append(event.text.upper())"
LAMBDA = "tracebus.subscribe(lambda sender, event: heard.append(event.text), 'text');"
SAY = "tracebus.emit('text', text='a'); print(heard)"


@pytest.mark.parametrize("cell", [FUNCTION, LAMBDA], ids=["function", "lambda"])
def test_a_cell_that_is_run_again_subscribes_once(run_python: Any, cell: str) -> None:
    assert in_notebook(run_python, cell, cell, tail=SAY) == "['a']"


def test_an_edited_cell_replaces_its_earlier_self(run_python: Any) -> None:
    assert in_notebook(run_python, FUNCTION, EDITED, tail=SAY) == "['A']"


def test_a_loop_in_one_cell_subscribes_all(run_python: Any) -> None:
    cell = "for mark in 'xy':\n    tracebus.subscribe(lambda sender, event, mark=mark: heard.append(mark), 'text')"
    assert in_notebook(run_python, cell, tail=SAY) == "['x', 'y']"


def test_a_handler_attached_again_is_replaced(run_python: Any) -> None:
    cell = "class Handler:\n    def on_text(self, text):\n        heard.append(text)\ntracebus.attach(Handler());"
    assert in_notebook(run_python, cell, cell, tail=SAY) == "['a']"


def test_top_level_await_delivers_to_async_subscribers(run_python: Any) -> None:
    cell = "async def hear(sender, event):\n    heard.append(event.text)\ntracebus.subscribe(hear, 'text');"
    said = "await tracebus.aemit('text', text='a'); print(heard)"
    assert in_notebook(run_python, cell, tail=said) == "['a']"
