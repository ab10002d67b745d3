"""Keep every run in one SQLite file, ``save()``, read it, ``Reader``, and say what is in it again, ``replay()``.

What is noted of an event is in ``records``, what is made of it in ``rows`` and ``bodies``, who writes it in ``writer``, into
what in ``schema``; what a reader answers is in ``answers``.
"""

from .answers import (
    Changes,
    Choices,
    Found,
    Info,
    Page,
    Point,
    PriceList,
    Process,
    RunBody,
    RunDetail,
    RunError,
    RunEvent,
    RunSummary,
    Session,
    Statistic,
    Step,
    Tokens,
    TraceSummary,
    TreeRow,
)
from .files import NoStoreYetError, StoreError, default_path
from .filters import By, Filter
from .reader import AmbiguousError, NotFoundError, Reader
from .replaying import ReplayedError, areplay, replay
from .saving import Saving, save
from .statistics import Grain
from .transfer import Imported, export_lines, export_runs, import_lines
from .upkeep import Removed, delete, prune

__all__ = [
    "save",
    "Saving",
    "Reader",
    "Filter",
    "By",
    "Grain",
    "replay",
    "areplay",
    "ReplayedError",
    "delete",
    "prune",
    "Removed",
    "export_lines",
    "export_runs",
    "import_lines",
    "Imported",
    "default_path",
    "StoreError",
    "NoStoreYetError",
    "NotFoundError",
    "AmbiguousError",
    "Changes",
    "Choices",
    "Found",
    "Info",
    "Page",
    "PriceList",
    "Point",
    "Process",
    "RunBody",
    "RunDetail",
    "RunError",
    "RunEvent",
    "RunSummary",
    "Session",
    "Statistic",
    "Step",
    "Tokens",
    "TraceSummary",
    "TreeRow",
]
