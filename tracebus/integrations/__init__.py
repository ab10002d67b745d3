"""Sources: what makes runs of the calls that other libraries make.

Each module here is about one library, and has ``install()`` and ``uninstall()``; the library is not imported before that.
"""
