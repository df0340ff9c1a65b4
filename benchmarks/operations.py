"""Does every operation of a catalogue work in every layer: built, trained a step, exported, run by ONNX Runtime?

    python benchmarks/operations.py [--teachers TEACHER ...] [--ops lana] [--shapes 4] [--part 0.1] [--spans]

Each distinct pair of shapes of the teachers' layers gets its operations of the catalogue; with ``--spans`` each run of
layers those that stand for all of them. An operation fails when it
cannot be built, when a step of training gives infinite weights, or when ONNX Runtime's output is off by more than 1e-4
of the largest output. Prints a table by family and, of every failure, where and why; exits with 1 when there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
import torch
from torch import nn

from lanaprof.errors import LanaprofError
from lanaprof.ops import (
    Operation,
    Shape,
    build_operation,
    fuse,
    match_output,
    operations_for,
    parse_operation,
)
from lanaprof.profiler.export import exported_model
from lanaprof.space import place_ends
from lanaprof.teachers import find_layers, load_teacher, own_module
from lanaprof.teachers.spans import find_spans

TEACHERS = ("timm:efficientnet_b1", "timm:tf_efficientnetv2_s", "timm:resnest50d")
WORST = 1e-4  # of the largest output


@dataclass(slots=True)
class Family:
    """What came out for one family."""

    count: int = 0
    worst: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """A layer whose shapes no earlier one has, and its operations."""

    teacher: str
    name: str
    input_shape: Shape
    output_shape: Shape
    module: nn.Module
    operations: tuple[Operation, ...]


def places(teachers: Sequence[str], ops: str) -> Iterator[Place]:
    """Yield the layers of the teachers, one for each pair of shapes."""
    seen: set[tuple[Shape, Shape]] = set()
    for text in teachers:
        teacher = load_teacher(text)
        for layer in find_layers(teacher):
            shapes = (layer.input_shape, layer.output_shape)
            if shapes in seen:
                continue
            seen.add(shapes)
            own = teacher.module.get_submodule(layer.name)
            operations = operations_for(
                ops, *shapes, teacher_macs=layer.macs, signed=layer.signed, teacher=own
            )
            yield Place(text, layer.name, *shapes, own, operations)


def runs(teachers: Sequence[str], ops: str) -> Iterator[Place]:
    """Yield the runs of layers that the catalogue has operations for."""
    for text in teachers:
        teacher = load_teacher(text)
        found = {layer.name: layer for layer in find_layers(teacher)}
        spans = find_spans(teacher, tuple(found.values()), ops, tell=print)
        names = list(found)
        for key in dict.fromkeys(span.key for span in spans):
            first, last = place_ends(key)
            module = own_module(teacher.module, names[names.index(first) : names.index(last) + 1])
            operations = tuple(parse_operation(span.name) for span in spans if span.key == key)
            yield Place(text, key, found[first].input_shape, found[last].output_shape, module, operations)


def difference(operation: Operation, place: Place) -> float:
    """Return ONNX Runtime's largest difference over the largest output, after a step of training.

    Raises:
        LanaprofError, RuntimeError: it cannot be built, trained, exported or run.
    """
    module = build_operation(operation, place.input_shape, place.output_shape, teacher=place.module)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, *shape, generator=generator) for shape in (place.input_shape, place.output_shape))
    match_output(module, x, y)
    weights = list(module.train().parameters())
    if weights:
        optimizer = torch.optim.SGD(weights, lr=0.01)
        (module(x) - y).square().mean().backward()
        optimizer.step()
        if not all(bool(weight.isfinite().all()) for weight in weights):
            raise RuntimeError("a step of training gives infinite weights")
    deployed = fuse(module, in_place=True)
    model = exported_model(deployed, (1, *place.input_shape))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"input": x[:1].numpy()})
    with torch.no_grad():
        expected = deployed(x[:1]).numpy()
    if actual.shape[1:] != place.output_shape:
        raise RuntimeError(f"gives {actual.shape[1:]} instead of {place.output_shape}")
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30))


def judge(place: Place, part: float, families: dict[str, Family]) -> None:
    """Try the operations of a layer (a part of them, evenly), and note what came out."""
    todo = [one for one in place.operations if one.family not in ("teacher", "skip")]
    step = max(1, round(1 / part))
    for operation in todo[::step]:
        family = families.setdefault(operation.family, Family())
        family.count += 1
        where = (
            f"{operation.text} in {place.teacher} {place.name} {place.input_shape} to {place.output_shape}"
        )
        try:
            off = difference(operation, place)
        except (LanaprofError, RuntimeError, ValueError) as error:
            family.failures.append(f"{where}: {type(error).__name__}: {error}")
            continue
        family.worst = max(family.worst, off)
        if not off <= WORST:
            family.failures.append(f"{where}: off by {off:.1e}")


def main() -> int:
    """Try and print; return 1 when something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, metavar="TEACHER")
    parser.add_argument("--ops", default="lana", help="quick, lana, FILE or package.module:function")
    parser.add_argument("--shapes", type=int, default=0, help="so many pairs of shapes, evenly; 0: all")
    parser.add_argument("--spans", action="store_true", help="in place of several layers, not of single ones")
    parser.add_argument("--part", type=float, default=1.0, help="of each layer's operations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began_s = time.monotonic()
    listed = runs if arguments.spans else places
    found = list(listed(arguments.teachers, arguments.ops))
    listed_s = time.monotonic() - began_s
    if arguments.shapes:
        found = found[:: max(1, len(found) // arguments.shapes)][: arguments.shapes]
    families: dict[str, Family] = {}
    for number, place in enumerate(found, start=1):
        judge(place, arguments.part, families)
        print(
            f"{number}/{len(found)} {place.name} {place.input_shape} to {place.output_shape}: "
            f"{len(place.operations)} operations, {time.monotonic() - began_s:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    print(f"{'family':18} {'tried':>6} {'failed':>7} {'worst difference':>17}")
    for name, family in families.items():
        print(f"{name:18} {family.count:6} {len(family.failures):7} {family.worst:17.1e}")
    failures = [failure for family in families.values() for failure in family.failures]
    tried = sum(family.count for family in families.values())
    print(
        f"{len(found)} pairs of shapes, {tried} operations tried, {len(failures)} failed; "
        f"listed in {listed_s:.0f} s, {time.monotonic() - began_s:.0f} s in all"
    )
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
