"""Runs revisions on the connection that `lanaprof.lut.schema` hands over, within its transaction.

Without a connection it writes the SQL they would run, for the dialect handed over.
"""

from alembic import context

from lanaprof.lut.models import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes.get("connection"),
    dialect_name=context.config.attributes.get("dialect"),
    literal_binds=context.is_offline_mode(),
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
