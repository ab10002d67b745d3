"""What starts runs where nobody wrote ``@traced``: each integration is a module or a package with ``install()`` and
``uninstall()``.

Integrations know the core and not each other, and import their library when they are imported. ``tracebus run`` installs one
when its library has been imported; which those are is in ``tracebus.bootstrap.tracebus_bootstrap``.
"""
