"""What of the pipeline is done already, so that ``run`` goes on where it was stopped."""

from __future__ import annotations

from lanaprof.config import Device
from lanaprof.errors import UserError
from lanaprof.flows.chosen import own_selections
from lanaprof.flows.learning import find_trained_candidates
from lanaprof.flows.predicting import open_predictor, table_digest
from lanaprof.flows.project import Project
from lanaprof.lut import Selection, Store

__all__ = ["find_proved_selection", "is_calibrated", "is_scored"]


def is_calibrated(project: Project, device: Device, store: Store, *, team: str) -> bool:
    """Say whether the newest calibration of the device was fitted on the table as it is."""
    try:
        predictor = open_predictor(project, device, store, team=team)
    except UserError:
        return False
    space = project.space.relay_digest(device.batch, precision=device.precision)
    found = store.calibrations(predictor.table.environment.id, space)
    return bool(found) and found[-1].table == table_digest(predictor.table, predictor.operators)


def is_scored(project: Project, store: Store, *, metric: str) -> bool:
    """Say whether every trained candidate has a score with the weights it has now."""
    trained = find_trained_candidates(project)
    scored = {row.candidate for row in store.scores(teacher=project.weights_digest, metric=metric)}
    return bool(trained) and all(candidate.digest in scored for candidate in trained.values())


def find_proved_selection(project: Project, store: Store, device: Device) -> Selection | None:
    """Return the latest selection on the device if it is verified and no older than the newest score."""
    newest = max((row.time for row in store.scores(teacher=project.weights_digest)), default="")
    for selection in reversed(own_selections(project, store)):
        if selection.device == device.text:
            return selection if selection.status == "verified" and selection.time >= newest else None
    return None
