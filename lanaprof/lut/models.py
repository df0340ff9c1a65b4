"""The tables and views of the database, as SQLAlchemy sees them. The migrations make them; a test compares.

Column names are the records' field names. Name → value pairs, lists and graphs are JSON text; samples with
their rounds are one compressed column (`lanaprof.lut.rows`). An index exists where a query needs it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from lanaprof.digest import DIGEST_LENGTH

__all__ = ["HEAD", "REVISIONS", "TABLES", "VERSION_TABLE", "VIEWS", "metadata"]

REVISIONS = ("0001_tables", "0002_views", "0003_timings")
"""Every revision there is, oldest first: known without importing Alembic. A test compares."""
HEAD = REVISIONS[-1]
VERSION_TABLE = "lanaprof_schema_version"
VIEWS = ("v_latency", "v_coverage", "v_score")

metadata = MetaData(
    naming_convention={  # named constraints can be dropped by a later migration
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


# On a server text is ordered and compared by code point, as SQLite does, whatever its locale.
_DIGEST = String(DIGEST_LENGTH).with_variant(String(DIGEST_LENGTH, collation="C"), "postgresql")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")


def _digest(name: str = "id", *, refers_to: str | None = None, key: bool = False) -> Column[str]:
    if refers_to is None:
        return Column(name, _DIGEST, primary_key=key, nullable=False)
    return Column(name, _DIGEST, ForeignKey(f"{refers_to}.id"), nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, _TEXT, nullable=False)


def _integer(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _real(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


operators = Table(
    "operators",
    metadata,
    _digest(key=True),
    _text("description"),
    _integer("params"),
    _integer("weight_bytes"),
    _integer("macs"),
    _integer("peak_bytes"),
    _integer("input_bytes"),
    _integer("output_bytes"),
    _integer("nodes"),
    _text("graph"),
)
environments = Table(
    "environments",
    metadata,
    _digest(key=True),
    _text("backend"),
    _text("backend_version"),
    _text("cpu_model"),
    _text("isa"),
    _integer("cores"),
    Column("smt", Boolean(create_constraint=False), nullable=False),
    _text("gpu_model"),
    _text("driver"),
    _integer("threads"),
    _text("options"),
)
measurements = Table(
    "measurements",
    metadata,
    _digest(key=True),
    _digest("operator", refers_to="operators"),
    _digest("environment", refers_to="environments"),
    _text("cache"),
    _text("space"),
    _text("protocol"),
    _text("status"),
    _real("latency_s", nullable=True),
    _real("ci_low_s", nullable=True),
    _real("ci_high_s", nullable=True),
    _integer("rejected"),
    _text("team"),
    _text("host"),
    _text("time"),
    _text("tool_version"),
    _real("load", nullable=True),
    _text("clock"),
    _text("priority"),
    _text("message"),
    Column("samples", LargeBinary, nullable=False),  # last: a query that leaves it out need not read past it
    CheckConstraint("cache IN ('relay', 'hot', 'cold')", name="cache"),
    CheckConstraint("status IN ('ok', 'noisy', 'failed', 'unsupported', 'timeout')", name="status"),
    # All that a table is made of: the rows of one environment lie everywhere, the entries of its index together.
    Index(
        "ix_measurements_timings",
        *("environment", "cache", "space", "operator", "protocol", "status"),
        *("latency_s", "ci_low_s", "ci_high_s", "team", "host", "time", "id"),
    ),
    Index(None, "operator"),
)
retractions = Table(
    "retractions",
    metadata,
    _digest(key=True),
    _digest("target"),  # no foreign key: the measurement may arrive later, or never
    _text("team"),
    _text("reason"),
    _text("time"),
    Index(None, "target", "team"),
)
scores = Table(
    "scores",
    metadata,
    _digest(key=True),
    _text("teacher"),
    _text("candidate"),
    _text("data"),
    _text("layer"),
    _text("operation"),
    _text("metric"),
    _real("score"),
    _real("standard_error", nullable=True),
    _integer("images"),
    _text("team"),
    _text("time"),
    Index(None, "teacher", "data", "metric"),
)
selections = Table(
    "selections",
    metadata,
    _digest(key=True),
    _text("teacher"),
    _text("space"),
    _text("device"),
    _text("environment"),  # no foreign key: empty when no environment was involved
    _text("budgets"),
    _text("choices"),
    _real("score", nullable=True),
    _real("bound", nullable=True),
    Column("proved", Boolean(create_constraint=False), nullable=False),
    _text("status"),
    _real("predicted_s", nullable=True),
    _real("measured_s", nullable=True),
    _real("ci_low_s", nullable=True),
    _real("ci_high_s", nullable=True),
    _integer("rounds"),
    _text("method"),
    _text("team"),
    _text("time"),
)
calibrations = Table(
    "calibrations",
    metadata,
    _digest(key=True),
    _digest("environment", refers_to="environments"),
    _text("space"),
    _text("table"),
    _text("weights"),
    _text("features"),
    _text("covariance"),
    _real("residual_sd"),
    _integer("degrees"),
    _text("networks"),
    _text("team"),
    _text("time"),
    Index(None, "environment", "space"),
)
recipes = Table(
    "recipes",
    metadata,
    _digest(key=True),
    _text("recipe"),
    _digest("operator", refers_to="operators"),
    _text("generator"),
    Index(None, "recipe"),
)

TABLES: Mapping[str, Table] = {
    "calibration": calibrations,
    "environment": environments,
    "measurement": measurements,
    "operator": operators,
    "recipe": recipes,
    "retraction": retractions,
    "score": scores,
    "selection": selections,
}
"""Table of each kind of record, sorted by kind."""
