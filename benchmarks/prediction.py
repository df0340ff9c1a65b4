"""How well does the table predict whole networks here?

    python benchmarks/prediction.py [TEACHER …] [--networks 30]

For each teacher (default timm:mobilenetv3_large_100, seeded weights): init → measure → calibrate → verify, in a
temporary folder, by the commands a user types. Prints one line per teacher: the errors after the common factor, beside
what the machine itself repeats to. Errors near the repeatability are as good as this machine allows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from lanaprof import LanaprofError
from lanaprof.flows.demo import run_command


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("teachers", nargs="*", default=["timm:mobilenetv3_large_100"])
    parser.add_argument("--networks", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(
        f"{'teacher':32} {'factor':>7} {'bias':>7} {'median':>7} {'95 %':>7} {'cover':>6} {'repeat':>7} {'seconds':>8}"
    )
    for teacher in arguments.teachers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            began_s = time.monotonic()
            run_command(folder, "init", "--teacher", teacher, "--device", arguments.device)
            measured = run_command(folder, "measure")
            run_command(folder, "calibrate")
            seconds = time.monotonic() - began_s
            found = run_command(folder, "verify", "--random", str(arguments.networks), "--seed", "1")
        noisy = "  too noisy to judge" if found["too_noisy"] else ""
        print(
            f"{teacher:32} {found['common_factor']:7.4f} {found['bias']:+7.2%} {found['median_error']:7.2%} "
            f"{found['p95_error']:7.2%} {found['coverage']:6.0%} {found['repeatability']:7.2%} {seconds:8.1f}"
            f"  ({measured['measured']} operators in {measured['seconds']:.0f} s){noisy}"
        )


if __name__ == "__main__":
    try:
        main()
    except LanaprofError as error:
        sys.exit(f"{error.message}\n  → {error.hint}")
