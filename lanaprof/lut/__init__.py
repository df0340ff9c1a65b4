"""The latency database: what was measured, where, by whom, and which number counts.

Records go in and come out through a `Store`; those above read a `Table`. Names are imported on first use:
neither SQL nor file formats load before they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lanaprof.lut.adding import AddReport, Refusal
    from lanaprof.lut.changes import OPERATORS_LEAST
    from lanaprof.lut.checking import CheckReport, check
    from lanaprof.lut.compare import (
        Comparison,
        Difference,
        OperatorRatio,
        compare_tables,
        environment_differences,
    )
    from lanaprof.lut.exchange import ExportReport, ImportReport, RefusedRow, export_file, import_files, merge
    from lanaprof.lut.graph import GraphStatistics, describe_graph, graph_statistics
    from lanaprof.lut.keys import GRAPH_FORMAT, TYPE_BITS, check_graph, environment_key, operator_key
    from lanaprof.lut.policy import POLICIES, Coverage, Estimate, Viewpoint, check_policy, coverage
    from lanaprof.lut.queries import RecordFilter
    from lanaprof.lut.records import (
        CACHES,
        FRONTIER,
        GOOD_STATUSES,
        STATUSES,
        Calibration,
        Environment,
        Measurement,
        Operator,
        Recipe,
        Record,
        Retraction,
        Score,
        Selection,
        record_from_json,
        utc_now,
    )
    from lanaprof.lut.schema import UpgradeReport, plan_upgrade, upgrade
    from lanaprof.lut.sending import transfer
    from lanaprof.lut.source import Source, parse_source
    from lanaprof.lut.store import Holding, Store, open_store
    from lanaprof.lut.surveying import SelectionGroup, SharedRatio
    from lanaprof.lut.table import EnvironmentChoice, Table, choose_environment, open_table

__all__ = [
    "CACHES",
    "FRONTIER",
    "GOOD_STATUSES",
    "GRAPH_FORMAT",
    "OPERATORS_LEAST",
    "POLICIES",
    "STATUSES",
    "TYPE_BITS",
    "AddReport",
    "Calibration",
    "CheckReport",
    "Comparison",
    "Coverage",
    "Difference",
    "Environment",
    "EnvironmentChoice",
    "Estimate",
    "ExportReport",
    "GraphStatistics",
    "Holding",
    "ImportReport",
    "Measurement",
    "Operator",
    "OperatorRatio",
    "Recipe",
    "Record",
    "RecordFilter",
    "Refusal",
    "RefusedRow",
    "Retraction",
    "Score",
    "Selection",
    "SelectionGroup",
    "SharedRatio",
    "Source",
    "Store",
    "Table",
    "UpgradeReport",
    "Viewpoint",
    "check",
    "check_graph",
    "check_policy",
    "choose_environment",
    "compare_tables",
    "coverage",
    "describe_graph",
    "environment_differences",
    "environment_key",
    "export_file",
    "graph_statistics",
    "import_files",
    "merge",
    "open_store",
    "open_table",
    "operator_key",
    "parse_source",
    "plan_upgrade",
    "record_from_json",
    "transfer",
    "upgrade",
    "utc_now",
]

_MODULES = {
    "adding": "AddReport Refusal",
    "changes": "OPERATORS_LEAST",
    "checking": "CheckReport check",
    "compare": "Comparison Difference OperatorRatio compare_tables environment_differences",
    "exchange": "ExportReport ImportReport RefusedRow export_file import_files merge",
    "graph": "GraphStatistics describe_graph graph_statistics",
    "keys": "GRAPH_FORMAT TYPE_BITS check_graph environment_key operator_key",
    "policy": "POLICIES Coverage Estimate Viewpoint check_policy coverage",
    "queries": "RecordFilter",
    "records": "CACHES FRONTIER GOOD_STATUSES STATUSES Calibration Environment Measurement Operator Recipe "
    "Record Retraction Score Selection record_from_json utc_now",
    "schema": "UpgradeReport plan_upgrade upgrade",
    "sending": "transfer",
    "source": "Source parse_source",
    "store": "Holding Store open_store",
    "surveying": "SelectionGroup SharedRatio",
    "table": "EnvironmentChoice Table choose_environment open_table",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
