"""One candidate in training."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lanaprof.distill.training import autograd_step, normalised_error
from lanaprof.ops import match_output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lanaprof.distill.runtime import Runtime
    from lanaprof.distill.taps import Tap
    from lanaprof.distill.weights import Recipe

__all__ = ["Student", "final_error"]

GRADIENT_NORM = 1.0  # clipped above; the normalised loss starts near 1
TAIL_SHARE = 0.1  # of the steps: their mean loss is the candidate's error


class Student:
    """One candidate in training.

    Args:
        module: as it was built; moved and changed in place.
        recipe: how it is trained.
        runtime: where.
        input_shape: of its layer, per sample.
    """

    def __init__(
        self, module: nn.Module, recipe: Recipe, runtime: Runtime, input_shape: tuple[int, ...]
    ) -> None:
        self.module = runtime.place(module).train().requires_grad_(True)
        self.last_s = 0.0  # what its last step took
        # of every step, filled as it goes; on the device, so that noting one waits for nothing
        self._losses = torch.zeros(recipe.steps, device=runtime.device)
        self._runtime = runtime
        self._optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        x = runtime.send(torch.zeros(2, *input_shape))
        before, version = torch.get_rng_state(), x._version
        with torch.no_grad():
            copy.deepcopy(self.module)(x)  # a copy: batch norm would note these zeros
        self.draws = not torch.equal(torch.get_rng_state(), before)  # random numbers, such as dropout's
        self._copies_input = x._version != version  # it would overwrite what its neighbours get, too

    def learn(self, tap: Tap, power: Tensor, *, step: int, rate: float) -> None:
        """Do one step of training.

        Args:
            tap: what the teacher's layer got and gave.
            power: of what it gave.
            step: from 0.
            rate: of learning.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        given = tap.input.clone() if self._copies_input else tap.input
        if step == 0:
            match_output(self.module, given, tap.output)
        with self._runtime.autocast():
            output = self.module(given)
        loss = normalised_error(output.float(), tap.output.float(), power)
        autograd_step(loss, self._optimizer, max_norm=GRADIENT_NORM)
        self._losses[step] = loss.detach()

    def losses(self, step: int) -> NDArray[np.float64]:
        """Return the losses of the steps before ``step``."""
        found: NDArray[np.float64] = self._losses[:step].double().cpu().numpy()
        return found

    def state(self) -> dict[str, Any]:
        """Return all that training depends on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "losses": self._losses,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.module.load_state_dict(state["module"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses.copy_(state["losses"])


def final_error(losses: NDArray[np.float64]) -> float:
    """Return a trained candidate's error: its mean loss over the last tenth of the steps."""
    return float(losses[-max(1, math.ceil(len(losses) * TAIL_SHARE)) :].mean())
