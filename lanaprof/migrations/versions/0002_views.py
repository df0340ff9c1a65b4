"""Views for people who read the database with other tools.

Revision ID: 0002_views
Revises: 0001_tables
"""

from alembic import op

revision = "0002_views"
down_revision = "0001_tables"
branch_labels = None
depends_on = None

_KEPT = "NOT EXISTS (SELECT 1 FROM retractions r WHERE r.target = m.id AND r.team = m.team)"
_VIEWS = {  # built from constants
    "v_latency": f"""
        SELECT m.operator, o.description, e.cpu_model, e.gpu_model, e.backend, e.backend_version, e.threads,
            m.cache, m.space, m.latency_s * 1000.0 AS latency_ms, m.ci_low_s * 1000.0 AS ci_low_ms,
            m.ci_high_s * 1000.0 AS ci_high_ms, m.status, m.team, m.time, m.environment, m.id AS measurement
        FROM measurements m
        JOIN operators o ON o.id = m.operator
        JOIN environments e ON e.id = m.environment
        WHERE {_KEPT}
    """,  # noqa: S608
    "v_coverage": f"""
        SELECT m.environment, e.cpu_model, e.gpu_model, e.backend, e.threads, m.cache, m.space, m.status,
            COUNT(DISTINCT m.operator) AS operators, COUNT(*) AS measurements, MAX(m.time) AS newest
        FROM measurements m
        JOIN environments e ON e.id = m.environment
        WHERE {_KEPT}
        GROUP BY m.environment, e.cpu_model, e.gpu_model, e.backend, e.threads, m.cache, m.space, m.status
    """,  # noqa: S608
    "v_score": """
        SELECT layer, operation, metric, score, standard_error, images, team, time, teacher, candidate, data
        FROM scores
    """,
}


def upgrade() -> None:
    for name, query in _VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in _VIEWS:
        op.execute(f"DROP VIEW {name}")
