"""Other libraries on the bus: sources that start runs where nobody wrote ``@traced``, and adapters for handlers of other
frameworks.

Integrations know the core and neither outputs nor each other, and import their library when they are imported. A source is a
module or a package with ``install()`` and ``uninstall()``; ``tracebus run`` installs one when its library has been imported:
which those are is in ``tracebus.bootstrap.tracebus_bootstrap``.
"""
