"""The revisions, oldest first: ``0001_<what>``."""
