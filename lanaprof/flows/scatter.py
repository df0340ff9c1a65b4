"""The chart of what scores promised against what networks became."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lanaprof.flows.axes import SMALL, Frame, axis_for, log_axis_for, marker
from lanaprof.flows.drawing import Drawing, Path, Shape, Text

if TYPE_CHECKING:
    from lanaprof.flows.judging import Trust

__all__ = ["trust_chart"]

_WIDTH, _HEIGHT = 860.0, 430.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 24.0, 34.0, 52.0
_LEAST_KL = 1e-6  # nats; a logarithmic axis has no zero


def trust_chart(trust: Trust) -> Drawing:
    """Return the networks by the sum of their scores and by their divergence after a short fine-tune.

    With several fine-tunes of a network a line joins the least and the largest divergence.
    """
    tuned = [[max(kl, _LEAST_KL) for kl in one.tuned_kl] for one in trust.judged]
    x = axis_for([*trust.sums, 0.0], ticks=7)
    y = log_axis_for([kl for row in tuned for kl in row])
    frame = Frame(x, y, _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM)
    shapes: list[Shape] = frame.shapes(
        f"sum of scores ({trust.metric})", f"KL after {trust.tune_steps} steps (nats)"
    )
    for total, row in zip(trust.sums, tuned, strict=True):
        middle = sum(row) / len(row)
        ends = (frame.at(total, min(row)), frame.at(total, max(row)))
        shapes.append(Path(points=ends, colour="muted"))
        title = f"sum of scores {total:.4f}, KL {middle:.4f}"
        shapes.append(marker("circle", frame.at(total, middle), 4, colour="accent", title=title))
    found = trust.correlations
    text = f"Kendall τ {found.score.tau:.2f} ({found.score.low:.2f} to {found.score.high:.2f})"
    if found.ceiling is not None:
        text += f"; two fine-tunes agree to {found.ceiling.tau:.2f}"
    shapes.append(Text(at=(_LEFT, 19), text=text, colour="muted", size=SMALL))
    label = f"What scores promised and what {len(trust.judged)} networks became"
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes), description=text)
