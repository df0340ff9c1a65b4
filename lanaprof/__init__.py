"""lanaprof: fit a trained neural network into a latency budget on your own device.

The names below are imported on first use; importing lanaprof imports no deep-learning library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lanaprof.version import VERSION

if TYPE_CHECKING:
    from lanaprof.errors import (
        BackendError,
        BackendUnavailable,
        BadArchitecture,
        BadInput,
        BadProblem,
        BadProject,
        DeviceUnavailable,
        InfeasibleBudget,
        LanaprofError,
        MissingMeasurement,
        MissingScores,
        SchemaMismatch,
        StoreError,
        UnknownDevice,
        UnknownOperation,
        UnknownSelection,
        UnknownTeacher,
        UserError,
    )
    from lanaprof.flows.api import OpenProject, open_project, open_table
    from lanaprof.flows.students import load_student
    from lanaprof.lut import Estimate, Table
    from lanaprof.profiler.calibration import Prediction
    from lanaprof.solver import Problem, Solution, frontier, load_problem, solve, solve_diverse
    from lanaprof.space import Architecture, Space, load_architecture

__version__ = VERSION
_HOME = {
    "Architecture": "lanaprof.space",
    "Estimate": "lanaprof.lut",
    "OpenProject": "lanaprof.flows.api",
    "Prediction": "lanaprof.profiler.calibration",
    "Problem": "lanaprof.solver",
    "Solution": "lanaprof.solver",
    "Space": "lanaprof.space",
    "Table": "lanaprof.lut",
    "frontier": "lanaprof.solver",
    "load_architecture": "lanaprof.space",
    "load_problem": "lanaprof.solver",
    "load_student": "lanaprof.flows.students",
    "open_project": "lanaprof.flows.api",
    "open_table": "lanaprof.flows.api",
    "solve": "lanaprof.solver",
    "solve_diverse": "lanaprof.solver",
}
_ERRORS = (
    "BackendError",
    "BackendUnavailable",
    "BadArchitecture",
    "BadInput",
    "BadProblem",
    "BadProject",
    "DeviceUnavailable",
    "InfeasibleBudget",
    "LanaprofError",
    "MissingMeasurement",
    "MissingScores",
    "SchemaMismatch",
    "StoreError",
    "UnknownDevice",
    "UnknownOperation",
    "UnknownSelection",
    "UnknownTeacher",
    "UserError",
)

__all__ = [
    "Architecture",
    "BackendError",
    "BackendUnavailable",
    "BadArchitecture",
    "BadInput",
    "BadProblem",
    "BadProject",
    "DeviceUnavailable",
    "Estimate",
    "InfeasibleBudget",
    "LanaprofError",
    "MissingMeasurement",
    "MissingScores",
    "OpenProject",
    "Prediction",
    "Problem",
    "SchemaMismatch",
    "Solution",
    "Space",
    "StoreError",
    "Table",
    "UnknownDevice",
    "UnknownOperation",
    "UnknownSelection",
    "UnknownTeacher",
    "UserError",
    "frontier",
    "load_architecture",
    "load_problem",
    "load_student",
    "open_project",
    "open_table",
    "solve",
    "solve_diverse",
]


def __getattr__(name: str) -> Any:
    home = "lanaprof.errors" if name in _ERRORS else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
