"""The tables of the first schema.

Revision ID: 0001_tables
Revises:
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001_tables"
down_revision = None
branch_labels = None
depends_on = None

_INDEXES = (
    ("calibrations", ("environment", "space")),
    ("measurements", ("environment", "cache", "space")),
    ("measurements", ("operator",)),
    ("recipes", ("recipe",)),
    ("retractions", ("target", "team")),
    ("scores", ("teacher", "data", "metric")),
)


# On a server text is ordered and compared by code point, as SQLite does, whatever its locale.
_DIGEST = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    _create_what_is_timed()
    _create_measurements()
    _create_what_is_derived()
    for table, columns in _INDEXES:
        op.create_index(_index(table, columns), table, list(columns))


def downgrade() -> None:
    for table, columns in _INDEXES:
        op.drop_index(_index(table, columns), table_name=table)
    for table in (
        "recipes", "calibrations", "selections", "scores", "retractions", "measurements", "environments",
        "operators",
    ):  # fmt: skip
        op.drop_table(table)


def _create_what_is_timed() -> None:
    op.create_table(
        "operators",
        _digest("id"),
        *_text("description"),
        *_integers("params", "weight_bytes", "macs", "peak_bytes", "input_bytes", "output_bytes", "nodes"),
        *_text("graph"),
        _primary("operators"),
    )
    op.create_table(
        "environments",
        _digest("id"),
        *_text("backend", "backend_version", "cpu_model", "isa"),
        *_integers("cores"),
        sa.Column("smt", sa.Boolean(), nullable=False),
        *_text("gpu_model", "driver"),
        *_integers("threads"),
        *_text("options"),
        _primary("environments"),
    )


def _create_measurements() -> None:
    op.create_table(
        "measurements",
        _digest("id"),
        _digest("operator"),
        _digest("environment"),
        *_text("cache", "space", "protocol", "status"),
        *_optional_reals("latency_s", "ci_low_s", "ci_high_s"),
        *_integers("rejected"),
        *_text("team", "host", "time", "tool_version"),
        *_optional_reals("load"),
        *_text("clock", "priority", "message"),
        sa.Column("samples", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("cache IN ('relay', 'hot', 'cold')", name=op.f("ck_measurements_cache")),
        sa.CheckConstraint(
            "status IN ('ok', 'noisy', 'failed', 'unsupported', 'timeout')",
            name=op.f("ck_measurements_status"),
        ),
        _foreign("measurements", "operator", "operators"),
        _foreign("measurements", "environment", "environments"),
        _primary("measurements"),
    )
    op.create_table(
        "retractions",
        _digest("id"),
        _digest("target"),
        *_text("team", "reason", "time"),
        _primary("retractions"),
    )


def _create_what_is_derived() -> None:
    op.create_table(
        "scores",
        _digest("id"),
        *_text("teacher", "candidate", "data", "layer", "operation", "metric"),
        sa.Column("score", sa.Double(), nullable=False),
        *_optional_reals("standard_error"),
        *_integers("images"),
        *_text("team", "time"),
        _primary("scores"),
    )
    op.create_table(
        "selections",
        _digest("id"),
        *_text("teacher", "space", "device", "environment", "budgets", "choices"),
        *_optional_reals("score", "bound"),
        sa.Column("proved", sa.Boolean(), nullable=False),
        *_text("status"),
        *_optional_reals("predicted_s", "measured_s", "ci_low_s", "ci_high_s"),
        *_integers("rounds"),
        *_text("method", "team", "time"),
        _primary("selections"),
    )
    op.create_table(
        "calibrations",
        _digest("id"),
        _digest("environment"),
        *_text("space", "table", "weights", "features", "covariance"),
        sa.Column("residual_sd", sa.Double(), nullable=False),
        *_integers("degrees"),
        *_text("networks", "team", "time"),
        _foreign("calibrations", "environment", "environments"),
        _primary("calibrations"),
    )
    op.create_table(
        "recipes",
        _digest("id"),
        *_text("recipe"),
        _digest("operator"),
        *_text("generator"),
        _foreign("recipes", "operator", "operators"),
        _primary("recipes"),
    )


def _digest(name: str) -> sa.Column[str]:
    return sa.Column(name, _DIGEST, nullable=False)


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, _TEXT, nullable=False) for name in names]


def _integers(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _optional_reals(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Double(), nullable=True) for name in names]


def _primary(table: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}"))


def _foreign(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}_{other}"))


def _index(table: str, columns: tuple[str, ...]) -> str:
    return f"ix_{table}_{'_'.join(columns)}"
