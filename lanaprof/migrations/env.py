"""Runs revisions on the connection that `lanaprof.lut.schema` hands over, within its transaction."""

from alembic import context

from lanaprof.lut.models import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
