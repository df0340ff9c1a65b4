"""The errors lanaprof raises on purpose.

::

    LanaprofError                 everything below; exit code 1 unless said otherwise
    ├── UserError                 the input or an unmet need: exit code 2
    │   ├── BadInput              a file, an option or a value that cannot be read
    │   ├── BadProject            no project here, or a broken one
    │   ├── BadArchitecture       an architecture file that does not fit
    │   ├── BadProblem            a selection problem that does not hold together
    │   ├── UnknownDevice         a device name nobody defined
    │   ├── DeviceUnavailable     a known device that is not in this machine
    │   ├── BackendUnavailable    a runtime that is not installed
    │   ├── UnknownTeacher        a network or weights that cannot be found
    │   ├── UnknownOperation      an operation no registered family provides
    │   ├── MissingMeasurement    the table lacks an operator
    │   ├── MissingScores         nobody scored the candidates yet
    │   ├── UnknownSelection      no stored selection has this id
    │   ├── InfeasibleBudget      no architecture is cheap enough; carries ``least``
    │   └── SchemaMismatch        a database older or newer than this program
    ├── StoreError                the database failed; exit code 2 when file, URL, permission or disk is at fault
    └── BackendError              a runtime refused or broke one operator: a row, not the end
        ├── UnsupportedOperator   the runtime has no kernel for it
        └── OperatorTimeout       it ran longer than allowed
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
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
    "OperatorTimeout",
    "SchemaMismatch",
    "StoreError",
    "UnknownDevice",
    "UnknownOperation",
    "UnknownSelection",
    "UnknownTeacher",
    "UnsupportedOperator",
    "UserError",
]


class LanaprofError(Exception):
    """An error with a message for a person.

    Args:
        message: what was asked and what is there.
        hint: what to type or do next; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UserError(LanaprofError):
    """The user's input or an unmet need; the program itself is fine."""

    exit_code = 2


class BadInput(UserError):
    """A file, an option or a value that cannot be read as what it should be."""


class BadProject(UserError):
    """There is no project here, or its files do not hold together."""


class BadArchitecture(UserError):
    """An architecture that is malformed or does not fit the space."""


class BadProblem(UserError):
    """A selection problem that is malformed: names, costs or scores do not hold together."""


class UnknownDevice(UserError):
    """No devices.yaml defines the device."""


class DeviceUnavailable(UserError):
    """The device is known, but this machine is not one."""


class BackendUnavailable(UserError):
    """The runtime the device needs is not installed."""


class UnknownTeacher(UserError):
    """The teacher's name, factory or weights cannot be found or do not fit."""


class UnknownOperation(UserError):
    """No registered family provides the operation, or its parameters are wrong."""


class MissingMeasurement(UserError):
    """The latency table lacks an operator that was asked for."""


class MissingScores(UserError):
    """There are no scores for the candidates yet."""


class UnknownSelection(UserError):
    """No stored selection matches the id."""


class InfeasibleBudget(UserError):
    """No architecture meets the budget.

    Attributes:
        least: the least reachable value of every budgeted cost, each alone, the fixed part included,
            in the cost's own unit.
    """

    def __init__(self, message: str, *, least: Mapping[str, float], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.least = dict(least)


class SchemaMismatch(UserError):
    """The database's schema is older or newer than this program's."""


class StoreError(LanaprofError):
    """The database failed.

    Args:
        users_fault: the file, URL, permission or disk is at fault (exit code 2), not lanaprof.
    """

    def __init__(self, message: str, *, hint: str = "", users_fault: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 2 if users_fault else 1


class BackendError(LanaprofError):
    """A runtime refused or broke one operator: a row of the campaign, not its end."""


class UnsupportedOperator(BackendError):
    """The runtime has no kernel for the operator, or its graph cannot be canonicalised."""


class OperatorTimeout(BackendError):
    """Building or running the operator took longer than allowed."""
