"""The web viewer: a page over the store and the HTTP face that it asks, as an ASGI app, which ``tracebus ui`` serves.

What it answers is in ``api``, what may be asked in ``questions``, who may ask in ``guard`` and ``gate``; what is new comes
from ``live``. The page itself, HTML, style and script, is in ``static``.
"""

from .app import viewer

__all__ = ["viewer"]
