"""The register of families, other packages' included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.errors import BadInput, UnknownOperation
from lanaprof.ops import Family, families, get_family, register_family

PLUGIN = """
from lanaprof.ops import Family, Parameter

def always(input_shape, output_shape, parameters):
    return None

FAMILY = Family("mirror", (Parameter("axis", 2, allowed=(2, 3)),), "plugin_modules:Mirror", "", "flipped", always)
WRONG = Family("wrong", (), "plugin_modules:Wrong", "", "gives another shape", always)
BOTH = (FAMILY, WRONG)
"""
MODULES = """
import torch
class Mirror(torch.nn.Module):
    def __init__(self, input_shape, output_shape, *, axis):
        super().__init__()
        self.axis = axis
    def forward(self, x):
        return x.flip(self.axis)
class Wrong(torch.nn.Module):
    def __init__(self, input_shape, output_shape):
        super().__init__()
    def forward(self, x):
        return x[:, :1]
"""


def run(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter that finds packages in a folder, too."""
    prelude = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(Path.cwd())!r}]\n"
    done = subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder with an installed package that registers two families, and one that is broken."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "plugin_modules.py").write_text(MODULES)
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[lanaprof.operations]\nboth = plugin:BOTH\nbroken = plugin:MISSING\n"
    )
    return tmp_path


def test_importing_operations_and_space_is_light(tmp_path: Path) -> None:
    """Neither torch nor any other heavy package is imported, not even by parsing and listing."""
    code = (
        "import lanaprof.ops as ops, lanaprof.space\n"
        "ops.parse_operation('mbconv(kernel=5)'); ops.operations_for('quick', (8, 4, 4), (8, 4, 4))\n"
        "print([name for name in ('torch', 'onnx', 'pandas', 'timm', 'tensorrt', 'pulp') if name in sys.modules])"
    )

    assert run(code, tmp_path) == "[]"


def test_families_of_other_packages_are_found(plugin: Path) -> None:
    """A package's entry point adds families whose operations are parsed and built."""
    code = (
        "from lanaprof.ops import *\n"
        "operation = parse_operation('mirror(axis=3)')\n"
        "import torch\n"
        "module = build_operation(operation, (2, 3, 4), (2, 3, 4))\n"
        "x = torch.randn(1, 2, 3, 4)\n"
        "print(operation.text, torch.equal(module(x), x.flip(3)), 'mirror' in [f.name for f in families()])"
    )

    assert run(code, plugin) == "mirror(axis=3) True True"


def test_a_broken_plugin_spoils_nothing_and_is_named(plugin: Path) -> None:
    """Who misses a family learns which plug-in could not be loaded."""
    code = (
        "from lanaprof.ops import *\n"
        "from lanaprof.errors import UnknownOperation\n"
        "get_family('mirror')\n"
        "try: get_family('missing')\n"
        "except UnknownOperation as error: print(error.message)"
    )

    message = run(code, plugin)

    assert "plug-ins that could not be loaded: plugin:MISSING" in message


def test_a_plugin_that_gives_another_shape_is_refused(plugin: Path) -> None:
    """A foreign module must give the shape its family promises."""
    code = (
        "from lanaprof.ops import *\n"
        "from lanaprof.errors import UnknownOperation\n"
        "try: build_operation(parse_operation('wrong'), (2, 3, 4), (2, 3, 4))\n"
        "except UnknownOperation as error: print(error.message)"
    )

    assert "gives (1, 3, 4) instead of (2, 3, 4)" in run(code, plugin)


def test_a_name_is_registered_once() -> None:
    """A second family of the same name is refused, and the first stays."""
    ours = get_family("conv")

    with pytest.raises(BadInput, match="an operation family 'conv' already"):
        register_family(Family("conv", (), "elsewhere:Conv", "", "another", ours.applies))

    assert get_family("conv") is ours


def test_the_families_of_the_contract_are_there() -> None:
    """The names that architecture files use."""
    ours = [family.name for family in families()][:9]

    assert ours == [
        "teacher", "skip", "conv", "ds", "mbconv", "fused_mbconv", "basic", "bottleneck", "repvgg",
    ]  # fmt: skip


def test_a_family_whose_module_is_missing_says_so() -> None:
    """The user learns which module cannot be loaded."""
    family = Family("ghost", (), "no_such_package.blocks:Ghost", "", "", get_family("conv").applies)

    with pytest.raises(UnknownOperation, match=r"no_such_package\.blocks:Ghost.*cannot be loaded"):
        family.load()
