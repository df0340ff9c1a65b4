"""An index that holds all a table is made of, so that reading one need not visit the rows, which lie everywhere.

Revision ID: 0003_timings
Revises: 0002_views
"""

from alembic import op

revision = "0003_timings"
down_revision = "0002_views"
branch_labels = None
depends_on = None

_OLD = ("environment", "cache", "space")
_NEW = (
    *_OLD, "operator", "protocol", "status", "latency_s", "ci_low_s", "ci_high_s", "team", "host", "time", "id",
)  # fmt: skip


def upgrade() -> None:
    op.drop_index("ix_measurements_environment_cache_space", table_name="measurements")
    op.create_index("ix_measurements_timings", "measurements", list(_NEW))


def downgrade() -> None:
    op.drop_index("ix_measurements_timings", table_name="measurements")
    op.create_index("ix_measurements_environment_cache_space", "measurements", list(_OLD))
