"""Which libraries are watched for, and what notices that one of them has been imported.

This runs before the program, and a program that uses no such library must not pay for it: nothing here imports tracebus,
or anything that Python has not already loaded when it starts. What happens then is in ``tracebus.instrumentation``.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

__all__ = ["GROUP", "LIBRARIES", "Library", "third_party_libraries", "watch"]

GROUP = "tracebus.integrations"
"""The entry points of other packages: each is named after the module to watch for, and has ``install()``."""


class Library:
    """A library that can be traced: the module to watch for, and where the integration is.

    ``integration`` is a module, or ``module:object``, with ``install()``. ``distribution`` is what ``pip`` calls the
    library. ``landmark`` is a name in the module that tells it from another one of that name. What is only ``by_name`` changes
    more than what tracebus hears, and is left alone unless it is asked for.
    """

    def __init__(self, module: str, integration: str, distribution: str, landmark: str = "", by_name: bool = False) -> None:
        self.module = module
        self.integration = integration
        self.distribution = distribution
        self.landmark = landmark
        self.by_name = by_name


LIBRARIES: dict[str, Library] = {
    "anthropic": Library("anthropic", "tracebus.integrations.anthropic", "anthropic"),
    # It writes headers into the app's messages.
    "celery": Library("celery", "tracebus.integrations.celery", "celery", by_name=True),
    "langchain": Library("langchain_core", "tracebus.integrations.langchain", "langchain-core"),
    "litellm": Library("litellm", "tracebus.integrations.litellm", "litellm"),
    "llama_index": Library("llama_index.core", "tracebus.integrations.llama_index", "llama-index-core"),
    "openai": Library("openai", "tracebus.integrations.openai", "openai"),
    # Many an app has a package `agents` of its own.
    "openai_agents": Library("agents", "tracebus.integrations.openai_agents", "openai-agents", landmark="RunContextWrapper"),
    # It changes the parents of the app's spans. When this module has run, so have those that it needs.
    "opentelemetry": Library("opentelemetry.trace", "tracebus.integrations.opentelemetry", "opentelemetry-api", by_name=True),
}
"""What tracebus traces itself, by the name that ``--only`` knows it by."""


def third_party_libraries() -> dict[str, Library]:
    """Return what installed packages add. They are read with importlib.metadata only if there are any: it loads slowly."""
    if not any(map(_has_entry_points, sys.path)):
        return {}
    from importlib.metadata import entry_points

    return {
        point.name: Library(point.name, point.value, point.dist.name if point.dist else point.name)
        for point in entry_points(group=GROUP)
    }


def _has_entry_points(directory: str) -> bool:
    try:
        names = [name for name in os.listdir(directory or os.curdir) if name.endswith(".dist-info")]
    except OSError:
        return False
    return any(_mentions_group(os.path.join(directory, name, "entry_points.txt")) for name in names)


def _mentions_group(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return f"[{GROUP}]".encode() in file.read()
    except OSError:
        return False


_EVERY_PYTHON_ASKS_FOR = {*sys.stdlib_module_names, "sitecustomize", "usercustomize"}


class Watcher:
    """A finder that finds nothing itself: it has the integration installed once the library's own code has run."""

    def __init__(self) -> None:
        self._only = {name.strip() for name in os.environ.get("TRACEBUS_ONLY", "").split(",")} - {""}
        self._known: set[str] = set()
        self._watched: dict[str, Library | None] = {}
        self._has_asked_others = False

    def start(self) -> None:
        """Watch from here on; what has been imported already is told of at once."""
        sys.meta_path.insert(0, self)
        self._watch_for({"tracebus": None})  # the app may have @traced functions and no library
        self._watch_for(self._chosen(LIBRARIES))

    def _chosen(self, libraries: dict[str, Library]) -> dict[str, Library | None]:
        self._known.update(libraries)
        wanted = self._only or {name for name, library in libraries.items() if not library.by_name}
        return {library.module: library for name, library in libraries.items() if name in wanted}

    def _watch_for(self, modules: dict[str, Library | None]) -> None:
        new = {module: library for module, library in modules.items() if module not in self._watched}
        self._watched.update(new)
        for module in new.keys() & sys.modules.keys():
            self._loaded(sys.modules[module], new[module])

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return what the other finders find, made to tell us about it, if ``name`` is watched for."""
        if not self._has_asked_others and name.partition(".")[0] not in _EVERY_PYTHON_ASKS_FOR:
            self._ask_others()
        if name not in self._watched or target is not None:
            return None
        spec = self._find(name, path)
        if spec is not None and hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, type):
            try:
                self._follow(spec)
            except Exception as error:  # a loader can be anybody's
                self._give_up(error)
        return spec

    def _ask_others(self) -> None:
        self._has_asked_others = True
        try:
            self._watch_for(self._chosen(third_party_libraries()))
        except Exception as error:
            sys.stderr.write(f"tracebus: what other packages can trace is not known: {error!r}\n")

    def _find(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)  # the import system takes a finder without one, too
            spec: ModuleSpec | None = None if find_spec is None else find_spec(name, path)
            if spec is not None:
                return spec
        return None

    def _follow(self, spec: ModuleSpec) -> None:
        """Have ``_loaded`` called when the module's code has run, and leave spec and loader as they were.

        While it runs, no frame of ours may be on the stack: it would be in the library's tracebacks, and a warning meant for
        who imports the library would be put down to us. So the steps are run from C, where `next` takes the module that the
        import system passes for the default that it returns when they have been.
        """
        from copy import copy
        from functools import partial

        loader: Any = copy(spec.loader)  # those of a zip file share one
        create, execute = loader.create_module, loader.exec_module
        made: list[ModuleType] = []

        def create_module(spec: ModuleSpec) -> ModuleType:
            made.append(create(spec) or type(sys)(spec.name))
            return made[0]

        def steps() -> Iterator[Iterator[object]]:
            del loader.create_module, loader.exec_module
            module = made[0] if made else sys.modules[spec.name]
            yield map(execute, (module,))
            if spec.name in self._watched:  # unless we have given up meanwhile
                self._loaded(module, self._watched[spec.name])

        loader.create_module = create_module
        loader.exec_module = partial(next, filter(None, map(next, steps())))
        spec.loader = loader

    def _loaded(self, module: ModuleType, library: Library | None) -> None:
        if library is not None and library.landmark and not hasattr(module, library.landmark):
            return
        try:
            from tracebus.instrumentation import install, start

            start(unknown=sorted(self._only - self._known))
            if library is not None:
                install(library.integration, library.distribution)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Stop watching. A Python without tracebus, started by one that has it, is nothing to complain about."""
        self._watched.clear()
        self._has_asked_others = True
        if not (isinstance(error, ModuleNotFoundError) and error.name == "tracebus"):
            sys.stderr.write(f"tracebus: nothing is traced in this process: {error!r}\n")


def watch() -> None:
    """Watch for libraries in this process. Called twice, it changes nothing."""
    if not any(isinstance(finder, Watcher) for finder in sys.meta_path):
        Watcher().start()
