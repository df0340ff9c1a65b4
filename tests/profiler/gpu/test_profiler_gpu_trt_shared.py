"""What TensorRT's builds and engines share: working memory, kernel timings, plans; and how their kernels are told."""

from __future__ import annotations

import gc
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from lanaprof.profiler.backends.base import Settings
from lanaprof.profiler.backends.tensorrt import TensorRt
from lanaprof.profiler.backends.trt_run import tactics_from_json
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.sample_graphs import conv_graph, matmul_graph, relu_graph, two_output_graph

_spec = importlib.util.spec_from_file_location("doubles", Path(__file__).parent / "bindings" / "doubles.py")
assert _spec is not None
assert _spec.loader is not None
doubles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(doubles)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what builds leave in the test's own folder."""
    monkeypatch.setenv("LANAPROF_CACHE", str(tmp_path))
    return tmp_path


def opened(script: Any, version: str = "11.4.0", **options: str) -> TensorRt:
    settings = Settings(options=tuple(options.items()))
    return TensorRt(settings, driver=script.gpu, api=doubles.scripted_api(script, version))


def buffers_of(backend: TensorRt, graph: Graph) -> tuple[list[Any], list[Any]]:
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    places = [reference[1:].split(".") for reference in graph["outputs"]]
    described = [graph["nodes"][int(node)]["outputs"][int(slot)] for node, slot in places]
    return inputs, [backend.buffer(row["type"], row["shape"], seed=99) for row in described]


# ------------------------------------------------------------------------------------------ working memory


def test_engines_share_their_working_memory() -> None:
    """One piece while it suffices; a larger one takes its place, and bound calls keep theirs."""
    script, graph = doubles.Script(), conv_graph()
    backend = opened(script)
    calls = []
    for scratch_bytes in (1000, 500, 3 << 20, 2 << 20):
        script.scratch_bytes = scratch_bytes
        calls.append(backend.compile(graph, seed=0).bind(*buffers_of(backend, graph)))
    addresses = [context.device_memory for context in script.contexts]

    assert addresses[0] == addresses[1] != addresses[2] == addresses[3]
    script.scratch_bytes = 500
    for call in calls:
        call()


def test_dropped_programs_give_their_memory_back() -> None:
    """Buffers go with their calls; the one piece of working memory stays."""
    script, graph = doubles.Script(), two_output_graph()
    backend = opened(script)
    before = len(script.gpu.blocks)

    backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))()
    script.contexts.clear()
    gc.collect()

    assert len(script.gpu.blocks) == before + 1


def test_tactics_are_told_by_program() -> None:
    """A line a kernel, and a digest that other weights do not change."""
    backend = opened(doubles.Script())
    first, other = (backend.compile(conv_graph(), seed=seed) for seed in (0, 1))
    relu = backend.compile(relu_graph(1, 8), seed=0)

    assert first.tactics() == ("Conv", "Relu")  # type: ignore[attr-defined]
    assert first.note == other.note != relu.note
    assert re.fullmatch(r"tactics [0-9a-f]{12}", first.note)


# --------------------------------------------------------------------------------------------- kernel timings


def timing_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("tensorrt/*/timings"))


def test_first_builds_share_their_timings(folder: Path) -> None:
    """What one process timed, the next one builds with; what it adds, it leaves."""
    graphs = (conv_graph(), matmul_graph(1, 4, 4))
    scripts = [doubles.Script(), doubles.Script()]
    for script, graph in zip(scripts, graphs, strict=True):
        opened(script).compile(graph, seed=0)

    first, second = (script.configs[0].cache.names for script in scripts)
    (file,) = timing_files(folder)
    assert first <= second
    assert b"MatMul" in second - first
    assert file.read_bytes().splitlines()[2:] == sorted(second)


def test_later_builds_start_afresh(folder: Path) -> None:
    """Another seed is another choice of kernels: it takes no timings and leaves none."""
    script = doubles.Script()
    opened(script).compile(conv_graph(), seed=0)
    (file,) = timing_files(folder)
    before = file.read_bytes()

    opened(script).compile(matmul_graph(1, 4, 4), seed=1)

    assert script.configs[1].cache.names.isdisjoint({b"Conv", b"Relu"})
    assert before == file.read_bytes()


@pytest.mark.parametrize(("version", "options"), [("10.4.0", {}), ("11.4.0", {"tf32": "on"})])
def test_another_environment_has_timings_of_its_own(
    folder: Path, version: str, options: dict[str, str]
) -> None:
    """Another TensorRT, and other options."""
    opened(doubles.Script(), "11.4.0").compile(conv_graph(), seed=0)
    script = doubles.Script()

    opened(script, version, **options).compile(matmul_graph(1, 4, 4), seed=0)

    assert b"Conv" not in script.configs[0].cache.names
    assert len(timing_files(folder)) == 2


def test_without_shared_timings_nothing_is_left(folder: Path) -> None:
    """As asked for."""
    opened(doubles.Script(), timing_cache="off").compile(conv_graph(), seed=0)

    assert timing_files(folder) == []


def test_timings_of_another_gpu_are_set_aside(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TensorRT itself says so; the build goes on without them, and leaves good ones."""
    opened(doubles.Script()).compile(conv_graph(), seed=0)
    (file,) = timing_files(folder)
    script = doubles.Script()
    backend = opened(script)
    content = b"timings\nelsewhere"
    _file_of(backend).write(content)

    backend.compile(matmul_graph(1, 4, 4), seed=0)

    assert script.configs[0].cache.names == {b"MatMul"}
    assert file.read_bytes().splitlines()[2:] == [b"MatMul"]
    assert "TensorRT says it is of another version or GPU" in capsys.readouterr().err


def test_what_others_left_meanwhile_is_kept(folder: Path) -> None:
    """Two processes build at once: the file ends with the timings of both."""
    script = doubles.Script()
    backend = opened(script)
    api_build = script.builds

    class Meanwhile(list[bytes]):
        def append(self, model: bytes) -> None:
            _file_of(backend).write(b"timings\nGelu")
            super().append(model)

    script.builds = Meanwhile(api_build)
    backend.compile(conv_graph(), seed=0)

    (file,) = timing_files(folder)
    assert file.read_bytes().splitlines()[2:] == [b"Conv", b"Gelu", b"Relu"]


def test_a_folder_that_cannot_be_written_costs_time_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said once; every operator is built all the same."""
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("LANAPROF_CACHE", str(folder / "file"))
    script = doubles.Script()
    backend = opened(script, plans="reuse")

    for graph in (conv_graph(), relu_graph(1, 8)):
        backend.compile(graph, seed=0)

    said = capsys.readouterr().err
    assert len(script.builds) == 2
    assert said.count("kernel timings of TensorRT cannot be kept") == 1
    assert said.count("plans of TensorRT cannot be kept") == 1


def _file_of(backend: TensorRt) -> Any:
    from lanaprof.profiler.backends.trt_cache import timing_file

    return timing_file(backend.environment)


# ------------------------------------------------------------------------------------------------------ plans


def test_plans_are_reused_on_request() -> None:
    """The same operator, weights and edges in the same environment; anything else is built."""
    script = doubles.Script()
    for _ in range(2):
        opened(script, plans="reuse").compile(conv_graph(), seed=0)
    opened(script, plans="reuse").compile(conv_graph(), seed=1)
    opened(script, "10.4.0", plans="reuse").compile(conv_graph(), seed=0)
    opened(script).compile(conv_graph(), seed=0)

    assert len(script.builds) == 4


def test_a_plan_that_is_not_loaded_is_built_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another driver may refuse it; what was there is kept aside."""
    script = doubles.Script()
    opened(script, plans="reuse").compile(conv_graph(), seed=0)
    (plan,) = (path for path in folder.glob("tensorrt/*/plans/*") if ".lock" not in path.name)
    script.broken_plans = {plan.read_bytes().partition(b"\n")[2]}

    with pytest.raises(Exception, match="cannot load the plan it built"):  # the script builds the same again
        opened(script, plans="reuse").compile(conv_graph(), seed=0)

    assert len(script.builds) == 2
    assert "TensorRT cannot load it" in capsys.readouterr().err
    assert list(folder.glob("tensorrt/*/plans/*.damaged-*"))


# ---------------------------------------------------------------------------------------------- the inspector


# From TensorRT 8's own examples (trt-engine-explorer, a ResNet in half precision on an A100), fields left out.
INSPECTED = """{"Layers": [
{"Name": "Reformatting CopyNode for Input Tensor 0 to Conv_0 + Relu_1", "LayerType": "Reformat",
 "Inputs": [{"Name": "input.1", "Dimensions": [32,3,224,224], "Format/Datatype": "Row major linear FP32"}],
 "Outputs": [{"Name": "Reformatted Input Tensor 0 to Conv_0 + Relu_1", "Dimensions": [32,3,224,224],
  "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}],
 "ParameterType": "Reformat", "Origin": "REFORMAT", "TacticValue": "0x0000000000000000"},
{"Name": "Conv_0 + Relu_1", "LayerType": "CaskConvolution",
 "Inputs": [{"Name": "Reformatted Input Tensor 0 to Conv_0 + Relu_1", "Dimensions": [32,3,224,224],
  "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"}],
 "Outputs": [{"Name": "onnx::MaxPool_125", "Dimensions": [32,64,112,112],
  "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
 "TacticName": "trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc_nhwc_k64r7s7c4_stride2x2",
 "TacticValue": "0x61d05b8ef3670baa"}],
"Bindings": ["input.1", "191"]}"""


def test_kernels_and_formats_are_read_from_the_inspector() -> None:
    """Their names are the tactic's, where it has one; the layers' names are left out."""
    assert tactics_from_json(INSPECTED) == (
        "Reformat 0x0000000000000000 Row major linear FP32 -> Channel major FP16 format where channel % 4 == 0",
        "CaskConvolution trt_turing_cutlass_image_network_first_layer_hmma_fprop_f16f16f32_nhwc_nhwc_k64r7s7c4_"
        "stride2x2 Channel major FP16 format where channel % 4 == 0 -> "
        "Channel major FP16 format where channel % 8 == 0",
    )


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": ["a name", "another"]}', '{"Layers": []}'])
def test_an_inspector_that_says_nothing_gives_none(text: str) -> None:
    """Without detailed verbosity, layers are names."""
    assert tactics_from_json(text) == ()
