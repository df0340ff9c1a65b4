"""The section on int8: what each network takes and loses, and how well mixed ones are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sections import Run, Section, commands_of, nothing_yet, percent

from lanaprof.units import format_duration

_NAMES = {"fp32": "fp32 everywhere", "int8": "int8 everywhere"}


def precision(runs: Sequence[Run]) -> Section:
    """Return what int8 and fp32, mixed by ``select``, come to."""
    title = "int8 and fp32 mixed"
    what = (
        "Every layer of a trained teacher as it is and in int8; nothing is trained. `select` mixes the two for budgets "
        "evenly between the least latency and the teacher's, and proves each."
    )
    if not runs:
        return nothing_yet(title, what, "python benchmarks/precision.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Proved: what `select` measured at last, in a campaign beside the teacher. File: the exported files, "
        "interleaved in a process of their own later, with their real weights. Agreement: images with the teacher's "
        "class. Divergence: from the teacher's output, in nats.",
    ]
    for run in runs:
        lines += _networks(run["part"], run["result"])
    lines += [
        "",
        "Latencies of random mixed networks, each predicted by a fit to the others, without and with what neighbours "
        "in int8 spare each other:",
        "",
        "| teacher | networks | r50 | sum alone: median | 95 % | with joined borders: median | 95 % |",
        "| --- " + "| ---: " * 6 + "|",
    ]
    for run in runs:
        found = run["result"]["errors"]
        errors = [percent(found[kind][name]) for kind in ("alone", "joined") for name in ("median", "p95")]
        repeats = percent(run["result"]["repeatability"])
        lines.append(f"| {run['part']} | {found['networks']} | {repeats} | {' | '.join(errors)} |")
    return Section(title=title, lines=lines, runs=runs)


def _networks(part: str, result: Mapping[str, Any]) -> list[str]:
    layers = result["layers"]
    ratios = sorted(row["int8_s"] / row["fp32_s"] for row in layers)
    teacher_s = result["networks"][0]["file_s"]
    lines = [
        "",
        f"### {part}",
        "",
        f"{len(layers)} layers, judged on {result['images']} images. Alone, a layer in int8 takes {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f} of what it takes in fp32.",
        "",
        "| network | in int8 | budget | proved | file | faster | file's size | agreement | divergence | accuracy |",
        "| --- " + "| ---: " * 9 + "|",
    ]
    for one in result["networks"]:
        name = _NAMES.get(one["name"], "mixed")
        budget = format_duration(one["budget_s"]) if "budget_s" in one else ""
        proved = f"{format_duration(one['measured_s'])}, {one['status']}" if "measured_s" in one else ""
        accuracy = percent(one["accuracy"]) if one["accuracy"] is not None else ""
        lines.append(
            f"| {name} | {one['int8_layers']} | {budget} | {proved} | {format_duration(one['file_s'])} "
            f"| {teacher_s / one['file_s']:.2f}× | {one['file_bytes'] / 1e6:.2f} MB "
            f"| {percent(one['agreement'])} | {one['kl']:.5f} | {accuracy} |"
        )
    return lines
