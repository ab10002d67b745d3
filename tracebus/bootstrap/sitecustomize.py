"""Start tracing in every process that has this directory on PYTHONPATH, then let the ``sitecustomize`` that it hides run.

Python's ``site`` imports this file before the program, and before those that the program starts, whatever Python they are.
It takes its directory off ``sys.path``, which then is what the program expects. What happens here is in
``tracebus_bootstrap``, beside this file.
"""

import os
import sys


def _start():
    # type: () -> None
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        if sys.hexversion >= 0x030B0000:
            __import__("tracebus_bootstrap").watch()
    except Exception as error:
        sys.stderr.write("tracebus: nothing is traced in this process: " + repr(error) + "\n")
    sys.path[:] = [entry for entry in sys.path if entry != here]


_start()
sys.modules.pop(__name__, None)
__import__(__name__)  # where none is hidden, this raises what `site` expects of a Python that has none
