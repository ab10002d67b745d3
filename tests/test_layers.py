"""Imports point down only: the rooms of the package, and who may know whom.

    tracebus/__init__        viewer, cli ──── bootstrap
            │                     │               │
            │                     ├──────── instrumentation
            │          outputs ───┴─── integrations
            ╰──── core ────╯

The rules read the source and import nothing, so that they also see what only runs on some machines.
"""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parent.parent

# Everything directly under tracebus/ is core, except these and tracebus/__init__.py, the re-exporting face.
ROOMS = {"outputs", "integrations", "instrumentation", "bootstrap", "viewer", "cli", "__main__"}
FACE = "tracebus"

# room: the rooms that it must not know. Nobody can know the face: it knows them, which would close a cycle.
ABOVE = {
    "core": ROOMS,
    "outputs": ROOMS - {"outputs"},
    "integrations": ROOMS - {"integrations"},
    "instrumentation": ROOMS - {"instrumentation", "outputs", "integrations"},
    "bootstrap": ROOMS - {"bootstrap", "instrumentation"},
    "viewer": ROOMS - {"viewer", "outputs", "integrations"},
}

# What core may import from outside the standard library, and what single modules of it may beside that.
CORE_NEEDS = {"anyio", "blinker", "msgspec"}
ALSO_NEEDS = {"tracebus.testing": {"pytest"}}

# (module, function) that may import when called: a __getattr__ re-exports a name lazily (PEP 562), and what runs before
# the program loads nothing that the program may not need.
BOOTSTRAP = "tracebus.bootstrap.tracebus_bootstrap"
IMPORTS_LATE = {
    (FACE, "__getattr__"),
    *((BOOTSTRAP, function) for function in ("third_party_libraries", "_follow", "_loaded")),
}

# What outputs share. It knows none of them.
OUTPUTS_SHARE = {"tracebus.outputs.batches", "tracebus.outputs.notes", "tracebus.outputs.writing"}

# The one output that the face knows, for log_to_stdout.
FACE_KNOWS = "tracebus.outputs.logs"


@dataclass(frozen=True)
class Import:
    """One module imported by another."""

    importer: str
    imported: str  # "tracebus.runs", "anyio.abc"
    line: int
    function: str  # the outermost function that the statement stands in, or ""
    typing_only: bool  # under `if TYPE_CHECKING:`, so never at run time

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


class Reader(ast.NodeVisitor):
    """Collect the imports of one module, with `known` being all the modules of the package."""

    def __init__(self, module: str, package: str, known: set[str]) -> None:
        self.module = module
        self.package = package
        self.known = known
        self.function = ""
        self.typing_only = False
        self.found: list[Import] = []

    def add(self, imported: str, line: int) -> None:
        self.found.append(Import(self.module, imported, line, self.function, self.typing_only))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            above = self.package.split(".")[: 1 - node.level or None]
            source = ".".join([*above, source] if source else above)
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            self.add(submodule if submodule in self.known else source, node.lineno)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer = self.function
        self.function = outer or node.name
        self.generic_visit(node)
        self.function = outer

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> None:
        outer = self.typing_only
        self.typing_only = outer or ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body:
            self.visit(statement)
        self.typing_only = outer
        for statement in node.orelse:
            self.visit(statement)


def read_imports(root: Path) -> list[Import]:
    paths = {}
    for path in sorted((root / "tracebus").rglob("*.py")):
        paths[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    found = []
    for module, path in paths.items():
        package = module if path.stem == "__init__" else module.rpartition(".")[0]
        reader = Reader(module, package, set(paths))
        reader.visit(ast.parse(path.read_text("utf-8"), path))
        found += reader.found
    return found


def top(module: str) -> str:
    return module.partition(".")[0]


def room(module: str) -> str:
    second = module.split(".")[1:2]
    return "face" if not second else second[0] if second[0] in ROOMS else "core"


def executed_first(item: Import) -> Iterator[str]:
    """Yield what an import executes: the module, and the packages around it that the importer is not in."""
    module = item.imported
    yield module
    while (module := module.rpartition(".")[0]) and not f"{item.importer}.".startswith(f"{module}."):
        yield module


def no_cycles(imports: Iterable[Import]) -> list[str]:
    """Imports under TYPE_CHECKING never run, so they cannot close a cycle; late ones can."""
    graph: dict[str, set[str]] = {}
    for item in imports:
        if not item.typing_only and top(item.imported) == FACE:
            graph.setdefault(item.importer, set()).update(executed_first(item))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" imports ".join(reversed(error.args[1]))]
    return []


def no_late_imports(imports: Iterable[Import]) -> list[str]:
    return [
        f"{item} inside {item.function}()"
        for item in imports
        if item.function and (item.importer, item.function) not in IMPORTS_LATE
    ]


def rooms_know_only_what_is_below(imports: Iterable[Import]) -> list[str]:
    """Also under TYPE_CHECKING: a type is knowledge, too."""
    return [
        str(item)
        for item in imports
        if top(item.imported) == FACE and room(item.imported) in ABOVE.get(room(item.importer), set())
    ]


def outputs_do_not_know_each_other(imports: Iterable[Import]) -> list[str]:
    return [
        str(item)
        for item in imports
        if room(item.importer) == room(item.imported) == "outputs"
        and item.importer.split(".")[2:3] != item.imported.split(".")[2:3]
        and item.imported not in OUTPUTS_SHARE
    ]


def the_face_knows_core_and_the_log_lines(imports: Iterable[Import]) -> list[str]:
    return [
        str(item)
        for item in imports
        if item.importer == FACE
        and top(item.imported) == FACE
        and room(item.imported) != "core"
        and item.imported != FACE_KNOWS
    ]


def core_needs_little(imports: Iterable[Import]) -> list[str]:
    allowed = CORE_NEEDS | sys.stdlib_module_names | {FACE}
    return [
        str(item)
        for item in imports
        if room(item.importer) in ("core", "face") and top(item.imported) not in allowed | ALSO_NEEDS.get(item.importer, set())
    ]


Rule = Callable[[Iterable[Import]], list[str]]
RULES: list[Rule] = [
    no_cycles,
    no_late_imports,
    rooms_know_only_what_is_below,
    outputs_do_not_know_each_other,
    the_face_knows_core_and_the_log_lines,
    core_needs_little,
]


@pytest.mark.parametrize("rule", RULES)
def test_tracebus_keeps_the_rule(rule: Rule) -> None:
    assert rule(read_imports(ROOT)) == []


BREAKS: list[tuple[Rule, dict[str, str]]] = [
    (no_cycles, {"a": "from tracebus import b", "b": "import tracebus.c", "c": "from .a import x"}),
    (no_cycles, {"__init__": "from tracebus.a import x", "a": "from tracebus import x"}),
    (no_cycles, {"a": "from .outputs.b import x", "outputs/__init__": "from .. import a", "outputs/b": ""}),
    (no_cycles, {"__init__": "def __getattr__(n):\n from .a import x", "a": "from . import y"}),
    (no_late_imports, {"a": "class A:\n async def f(self):\n  if 1:\n   import json"}),
    (no_late_imports, {"__init__": "def __dir__():\n import json"}),
    (rooms_know_only_what_is_below, {"a": "from .outputs.logs import x", "outputs/logs": ""}),
    (rooms_know_only_what_is_below, {"a": "if TYPE_CHECKING:\n from tracebus import cli", "cli": ""}),
    (rooms_know_only_what_is_below, {"outputs/a": "from ..integrations.b import x", "integrations/b": ""}),
    (rooms_know_only_what_is_below, {"instrumentation": "if TYPE_CHECKING:\n from .cli.run import x", "cli/run": ""}),
    (rooms_know_only_what_is_below, {"integrations/a": "import tracebus.outputs.b", "outputs/b": ""}),
    (outputs_do_not_know_each_other, {"outputs/a": "from . import b", "outputs/b": ""}),
    (outputs_do_not_know_each_other, {"outputs/notes": "from .b import x", "outputs/b": ""}),
    (the_face_knows_core_and_the_log_lines, {"__init__": "from .outputs.b import x", "outputs/b": ""}),
    (core_needs_little, {"a": "try:\n import structlog\nexcept ImportError:\n pass"}),
    (core_needs_little, {"a": "import pytest"}),
]

KEEPS = {
    "__init__": (
        "from tracebus.a import x\nif TYPE_CHECKING:\n from tracebus.outputs.logs import y\n"
        "def __getattr__(n):\n from tracebus.outputs.logs import y"
    ),
    "a": "import json, anyio.abc\nfrom blinker import Signal\nfrom .b import y\nif TYPE_CHECKING:\n pass",
    "b": "if TYPE_CHECKING:\n from .a import x",
    "cli": "from .outputs import logs, store\nimport typer",
    "testing": "import pytest\nfrom .a import x",
    "outputs/__init__": "",
    "outputs/logs": "import structlog\nfrom ..a import x\nfrom tracebus.b import y",
    "outputs/store/__init__": "from .table import x",
    "outputs/store/table": "import sqlite3\nfrom ..notes import x",
    "outputs/notes": "from ..a import x",
    "integrations/openai": "import openai\nfrom tracebus.a import x",
}


def write_package(root: Path, modules: dict[str, str]) -> None:
    for name, source in ({"__init__": ""} | modules).items():
        path = root / "tracebus" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


@pytest.mark.parametrize(("rule", "modules"), BREAKS)
def test_a_rule_sees_what_breaks_it(rule: Rule, modules: dict[str, str], tmp_path: Path) -> None:
    write_package(tmp_path, modules)
    assert len(rule(read_imports(tmp_path))) == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, tmp_path: Path) -> None:
    write_package(tmp_path, KEEPS)
    assert rule(read_imports(tmp_path)) == []


def test_importing_tracebus_loads_nothing_that_only_some_need(run_python: Callable) -> None:
    done = run_python("-c", "import sys, tracebus; print(*{'structlog', 'pytest'} & set(sys.modules))")
    assert (done.stdout.strip(), done.stderr) == ("", "")
