"""What candidates cost, as distilling asks for it: it gives up those that nothing can select. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lanaprof.distill.dropped import DroppedCandidate, find_dropped, still_dropped
from lanaprof.distill.stopping import Costs, SpaceCosts
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import SIZE_COSTS
from lanaprof.ops import SKIP

__all__ = ["dropped_candidates", "space_costs"]


def space_costs(project: Project, predictors: Sequence[Predictor]) -> SpaceCosts:
    """Return layer → operation → (low, high) of every cost of the project that may be budgeted.

    Latencies come first, by device, in seconds as the solver adds them up, with the interval of the measurement;
    sizes are points. Only candidates that are known on every device; none without measurements.
    """
    names = [name for name in project.config.costs if name in SIZE_COSTS]
    found: dict[str, dict[str, Costs]] = {}
    for layer in project.space.places if predictors else ():
        own = {}
        for operation in layer.candidates:
            latencies = [_latency(predictor, layer.name, operation) for predictor in predictors]
            known = [interval for interval in latencies if interval is not None]
            if len(known) == len(latencies):
                own[operation] = (*known, *_sizes(predictors[0], layer.name, operation, names))
        found[layer.name] = own
    return found


def _latency(predictor: Predictor, layer: str, operation: str) -> tuple[float, float] | None:
    if operation == SKIP:
        cost_s = predictor.candidate_cost_s(layer, operation)
        return cost_s, cost_s
    estimate = predictor.find_estimate(layer, operation)
    if estimate is None:
        return None
    assert estimate.latency_s is not None
    assert estimate.ci_low_s is not None
    assert estimate.ci_high_s is not None
    cost_s = predictor.candidate_cost_s(layer, operation)
    share = predictor.fitted.weights[0] if predictor.fitted is not None else 1.0  # of the measured latency
    ends = [
        cost_s + share * (end_s - estimate.latency_s) for end_s in (estimate.ci_low_s, estimate.ci_high_s)
    ]
    return min(ends), max(ends)


def _sizes(predictor: Predictor, layer: str, operation: str, names: Sequence[str]) -> Costs:
    if operation == SKIP:
        return ((0.0, 0.0),) * len(names)
    estimate = predictor.find_estimate(layer, operation)
    assert estimate is not None
    sizes = predictor.statistics[estimate.operator]
    return tuple((SIZE_COSTS[name](sizes),) * 2 for name in names)


def dropped_candidates(project: Project, costs: SpaceCosts) -> dict[tuple[str, str], DroppedCandidate]:
    """Return what distilling with the last recipe gave up, by layer and operation without its precision.

    Args:
        project: whose candidates.
        costs: as ``space_costs`` gives them; those that these no longer condemn are left out.
    """
    found = find_dropped(project.state / "weights", _last_key(project))
    return {name: one for name, one in found.items() if still_dropped(one, costs)}


def _last_key(project: Project) -> str:
    """Return the folder of the last recipe's weights; of a first distilling that was interrupted, the newest one."""
    try:
        return str(json.loads((project.state / "distill.json").read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):  # distill itself says what is wrong with the file
        folders = [path for path in (project.state / "weights").glob("*") if path.is_dir()]
        return max(folders, key=lambda path: path.stat().st_mtime).name if folders else "none"
