"""What the comparison of benchmarks/lana.py comes to: per method its latency, quality, and how far it is from ours."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["paired", "show", "student_rows", "summary"]

OURS = "lanaprof"


def student_rows(
    networks: Sequence[Mapping[str, Any]],
    jobs: Mapping[str, Mapping[str, Any]],
    trained: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return a row per speed, method and seed: latency, quality, and quality beside ours on the same images."""
    by_use = {
        (use["speed"], use["method"], use["seed"]): trained[key]
        for key, job in jobs.items()
        for use in job["uses"]
    }
    rows = []
    for (speed, method, seed), result in sorted(by_use.items()):
        network = next(
            row
            for row in networks
            if row["speed"] == speed
            and row["method"] == (OURS if method == "scratch" else method)
            and (method != "random" or row["draw"] == seed)
        )
        ours = by_use[speed, OURS, seed]
        row = {
            "speed": speed,
            "method": method,
            "seed": seed,
            "latency_s": network["latency_s"],
            "ci_low_s": network["ci_low_s"],
            "ci_high_s": network["ci_high_s"],
            "budget_s": network["budget_s"],
            "teacher_s": network["teacher_s"],
            "network": list(network.get("choices", ())) or network.get("scaled"),
            "images": result["images"],
            "unlike": len(result["unlike"]),
            "heldout_kl": result["heldout_kl"],
            "reestimated_kl": result["reestimated_kl"],
            "train_s": result["seconds"],
            "behind_unlike": paired(result["unlike"], ours["unlike"], result["images"]),
        }
        if result["wrong"] is not None:
            row |= {
                "wrong": len(result["wrong"]),
                "behind_wrong": paired(result["wrong"], ours["wrong"], result["images"]),
            }
        rows.append(row)
    return rows


def paired(theirs: Sequence[int], ours: Sequence[int], images: int) -> list[float]:
    """Return by what share of images they are behind us, and its standard error over images.

    >>> paired([1, 2, 3], [3, 4], 100)
    [0.01, 0.0173]
    """
    only_theirs, only_ours = len(set(theirs) - set(ours)), len(set(ours) - set(theirs))
    difference = (only_theirs - only_ours) / images
    variance = (only_theirs + only_ours) / images - difference**2
    return [round(difference, 6), round(math.sqrt(max(0.0, variance) / images), 4)]


def summary(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row per speed and method, means over seeds.

    ``behind`` is how far behind ours, as a share, with the larger of two standard errors: over images, and over seeds.
    """
    labelled = result["teacher"]["wrong_count"] is not None
    count, behind = ("wrong", "behind_wrong") if labelled else ("unlike", "behind_unlike")
    found = []
    keys = dict.fromkeys((row["speed"], row["method"]) for row in result["students"])
    for speed, method in keys:
        rows = [row for row in result["students"] if (row["speed"], row["method"]) == (speed, method)]
        differences = [row[behind][0] for row in rows]
        over_images = math.sqrt(sum(row[behind][1] ** 2 for row in rows)) / len(rows)
        over_seeds = statistics.stdev(differences) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0
        right = [1 - row[count] / row["images"] for row in rows]
        found.append(
            {
                "speed": speed,
                "method": method,
                "seeds": len(rows),
                "speedup": statistics.mean(row["teacher_s"] / row["latency_s"] for row in rows),
                "quality": statistics.mean(right),
                "quality_sd": statistics.stdev(right) if len(rows) > 1 else None,
                "agreement": 1 - statistics.mean(row["unlike"] / row["images"] for row in rows),
                "behind": statistics.mean(differences),
                "standard_error": max(over_images, over_seeds),
                "kl": statistics.mean(row["heldout_kl"] for row in rows),
            }
        )
    return sorted(found, key=lambda row: (row["speed"], -row["quality"]))


def show(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print a table per task."""
    for run in runs:
        result = run["result"]
        teacher = result["teacher"]
        wrong = teacher["wrong_count"]
        own = "judged by agreement" if wrong is None else f"{1 - wrong / teacher['images']:.2%} right"
        print(
            f"\n{result['task']}: teacher {own} on {teacher['images']} test images; "
            f"{result['trained']} of {result['candidates']} candidates trained in {result['distill_s']:.0f} s"
        )
        print(
            f"{'speed':>5} {'method':10} {'seeds':>5} {'measured':>8} {'right':>7} {'agree':>7} {'KL':>7} "
            f"{'behind ours':>17}"
        )
        for row in summary(result):
            print(
                f"{row['speed']:4g}× {row['method']:10} {row['seeds']:5} {row['speedup']:7.2f}× "
                f"{row['quality']:7.2%} {row['agreement']:7.2%} {row['kl']:7.4f} "
                f"{row['behind'] * 100:+7.2f} ± {row['standard_error'] * 100:.2f} points"
            )
