"""LangChain and LangGraph on the bus: ``install()`` traces every run of the process, ``TracebusHandler`` those it is given to.

::

    from tracebus.integrations.langchain import install

    install()

How its callbacks become runs is in ``bridge``; how its handlers hear the bus in ``adapter``.
"""

from ...errors import MissingExtraError

try:
    import langchain_core as _  # noqa: F401  # asked for by name, so that nothing else that is missing is taken for it
except ImportError as error:
    raise MissingExtraError('LangChain is not installed: pip install "tracebus[langchain]"') from error

from .bridge import TracebusHandler
from .install import install, uninstall

__all__ = ["TracebusHandler", "install", "uninstall"]
