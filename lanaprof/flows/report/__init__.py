"""The parts of a project's report, one file a subject. ``lanaprof.flows.reporting`` puts them on one page."""
