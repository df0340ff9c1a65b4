"""What distilling costs beside the candidates' own training steps: ``python benchmarks/distilling.py``.

The real ``distill`` runs; after each of its steps the same candidates are trained for a step each alone, on the same
tensors: forward, loss, backward, clipping, optimiser. The ratio is distilling over these plus one pass of the teacher.
With one thread (the default) it is of processor time, so that other programs count on neither side. With more,
distilling trains one candidate per thread while those alone get all threads in turn, and the ratio is of wall time: for
a machine that does nothing else.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from candidate_pool import OPERATIONS, write_pool
from harness import HERE, ended, harness_from, parser_for
from torch import Tensor, nn

from lanaprof.distill import DataSource, Progress, Recipe, distill, load_data
from lanaprof.distill.runtime import Runtime
from lanaprof.distill.taps import Taps
from lanaprof.distill.weights import build_candidate
from lanaprof.space import Space
from lanaprof.teachers import Teacher, find_layers, load_teacher, make_space

# part → teacher, its search path, layers, input, data, candidates a layer, batch
PARTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {
        "teacher": "teacher:teacher",
        "search_path": HERE.parent / "examples" / "fashion_mnist",
        "layers": ["blocks.*"],
        "input_shape": (1, 28, 28),
        "data": "fashion-mnist",
        "each": 22,
        "batch": 64,
    },
    "efficientnet_lite0": {
        "teacher": "timm:tf_efficientnet_lite0",
        "search_path": HERE,
        "layers": ["blocks.*.*"],
        "input_shape": (3, 128, 128),
        "data": "random",
        "each": 12,
        "batch": 16,
    },
    "tiny": {
        "teacher": "tiny_teacher:network",
        "search_path": HERE,
        "layers": ["1.*"],
        "input_shape": (1, 16, 16),
        "data": "random",
        "each": 3,
        "batch": 8,
    },
}


class Alone:
    """The candidates' bare training steps, each alone with what it is given."""

    def __init__(self, teacher: Teacher, space: Space, recipe: Recipe, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._runtime = Runtime.here(recipe.precision)
        self._teacher = self._runtime.place(copy.deepcopy(teacher.module)).eval()
        self._taps = Taps(self._teacher, [layer.name for layer in space.layers])
        self._candidates: list[tuple[str, nn.Module, torch.optim.Optimizer]] = []
        for layer in space.layers:
            for text in layer.candidates:
                if text in ("teacher", "skip"):
                    continue
                module = build_candidate(layer.name, text, (layer.input_shape, layer.output_shape), seed=0)
                placed = self._runtime.place(module).train()
                optimizer = torch.optim.AdamW(
                    placed.parameters(), lr=1e-3, weight_decay=recipe.weight_decay, fused=True
                )
                self._candidates.append((layer.name, placed, optimizer))

    def __len__(self) -> int:
        return len(self._candidates)

    def step(self, x: Tensor) -> float:
        """Return the seconds of a pass of the teacher and a step of each candidate."""
        x = self._runtime.send(x)
        with torch.no_grad(), self._runtime.autocast():
            began_s = self._clock()
            self._teacher(x)
            spent_s = self._clock() - began_s
            _, flowed = self._taps.run(x)
        for layer, module, optimizer in self._candidates:
            given, wanted = flowed[layer].input, flowed[layer].output.float()
            began_s = self._clock()
            optimizer.zero_grad(set_to_none=True)
            with self._runtime.autocast():
                output = module(given)
            loss = nn.functional.mse_loss(output.float(), wanted) / wanted.square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            spent_s += self._clock() - began_s
        return spent_s


def loaded(part: str, folder: Path) -> tuple[Teacher, Space, DataSource]:
    """Return a part's teacher, space and data."""
    what = PARTS[part]
    teacher = load_teacher(what["teacher"], input_shape=what["input_shape"], search_path=what["search_path"])
    ops = write_pool(folder / "ops.txt", count=what["each"])
    space = make_space(teacher, find_layers(teacher, what["layers"]), ops=ops)
    data = load_data(
        what["data"], input_shape=what["input_shape"], preprocessing=teacher.preprocessing or None
    )
    return teacher, space, data


def compare(part: str, *, steps: int, precision: str, threads: int) -> dict[str, Any]:
    """Return the times of both sides, interleaved step by step; the first step warms up."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        teacher, space, data = loaded(part, Path(name))
        batch = min(PARTS[part]["batch"], data.train_count)
        recipe = Recipe(steps=steps, batch_size=batch, precision=precision)
        clock = time.process_time if threads == 1 else time.perf_counter
        alone = Alone(teacher, space, recipe, clock)
        x = data.batch("train", range(batch))[0]
        engine_s: list[float] = []
        bare_s: list[float] = []
        since_s = clock()

        def beside(_progress: Progress) -> None:
            nonlocal since_s
            engine_s.append(clock() - since_s)
            bare_s.append(alone.step(x))
            since_s = clock()

        wanted = {layer.name: layer.candidates for layer in space.layers}
        distill(teacher, space, data, wanted=wanted, recipe=recipe, folder=Path(name), progress=beside)
        after_s = clock() - since_s
    ratios = [own / other for own, other in zip(engine_s, bare_s, strict=True)][1:]
    return {
        "candidates": len(alone),
        "layers": len(space.layers),
        "batch": batch,
        "steps": steps,
        "precision": precision,
        "threads": threads,
        "engine_s": median(engine_s[1:]),
        "bare_s": median(bare_s[1:]),
        "ratio": median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        "before_s": max(0.0, engine_s[0] - median(engine_s[1:])),
        "after_s": after_s,
    }


def show(result: dict[str, Any]) -> None:
    """Print one line."""
    ratios = f"{result['ratio']:.3f} ({result['ratio_low']:.3f} to {result['ratio_high']:.3f})"
    print(
        f"{result['candidates']} candidates in {result['layers']} layers, batches of {result['batch']}, "
        f"{result['precision']}, {result['threads']} threads: a step {result['engine_s']:.3f} s, alone with teacher "
        f"{result['bare_s']:.3f} s, ratio {ratios}; before {result['before_s']:.2f} s, after {result['after_s']:.2f} s",
        flush=True,
    )


def main() -> None:
    """Compare on every part."""
    parser = parser_for(__doc__)
    parser.add_argument("--steps", type=int, default=12, help="steps of distilling; the first one warms up")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only these; repeatable")
    given = parser.parse_args()
    if given.quick:
        given.steps, given.part = 3, ["tiny"]
    parts = given.part or ["fashion_mnist", "efficientnet_lite0"]
    chosen = {"steps": given.steps, "precision": given.precision, "threads": given.threads}
    harness = harness_from("distilling", given, {**chosen, "operations": len(OPERATIONS)})
    harness.parts(parts, lambda part: [compare(part, **chosen)])
    for run in harness.finish():
        show(run["result"])


if __name__ == "__main__":
    ended(main)
