"""Alembic environment and revisions of the latency database. Run through `lanaprof.lut.schema`."""
