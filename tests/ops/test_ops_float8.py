"""fp8: rounding as torch converts, its gradient, its scales, and ONNX that computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from lanaprof.errors import UnsupportedOperator
from lanaprof.lut.keys import operator_key
from lanaprof.ops import at_precision, build_operation, parse_operation
from lanaprof.ops.quantising import FP8_HIGH, get_grid, grid_at
from lanaprof.ops.quantising.float8 import round_to_float8
from lanaprof.ops.quantising.module import Quantised, ValueRounding, WeightRounding
from lanaprof.ops.quantising.ranges import METHODS, Observed, Scale, choose_scale
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.backends.registry import backend_class
from lanaprof.profiler.export import exported_graph, exported_model
from lanaprof.profiler.roundings import deployed_model

IMAGE, TOKENS = (8, 12, 12), (49, 32)
FAMILIES = ("conv", "mbconv(expand=2,se=0.25)", "mbconv(expand=2,act=hswish)", "basic(width=0.5)", "repvgg")


def batch(shape: tuple[int, ...] = IMAGE, count: int = 4) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def calibrated(text: str, shape: tuple[int, ...] = IMAGE) -> Quantised:
    """Return an operation in fp8, calibrated on a batch."""
    made = at_precision(build_operation(parse_operation(text), shape, shape).eval(), "fp8", shape)
    assert isinstance(made, Quantised)
    x = batch(shape)
    seen = [Observed() for _ in made.values]
    with torch.no_grad():
        y = made.observe(x, seen)
    border = (Observed(), Observed())
    border[0].add(x)
    border[1].add(y)
    made.calibrate(seen, border=border)
    return made


def seen_of(values: list[float]) -> Observed:
    observed = Observed()
    observed.add(torch.tensor(values))
    return observed


def test_all_floats_of_eight_bits_stand_for_themselves() -> None:
    """Each of the 254 numbers of torch's type is rounded to itself."""
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    numbers = numbers[numbers.isfinite()]

    assert len(numbers) == 254
    torch.testing.assert_close(round_to_float8(numbers, torch.tensor(1.0)), numbers, rtol=0, atol=0)


def test_values_are_rounded_as_torch_converts_them() -> None:
    """To the nearest number of torch's own type, scaled."""
    x, scale = batch() * 20, torch.tensor(0.25)
    expected = (x / scale).to(torch.float8_e4m3fn).float() * scale

    torch.testing.assert_close(round_to_float8(x, scale), expected, rtol=0, atol=0)


def test_what_is_too_large_is_cut_off() -> None:
    """The ends are 448 steps; nothing becomes infinite, or no number."""
    x = torch.tensor([1e4, -1e4, float("inf"), 450.0])

    assert round_to_float8(x, torch.tensor(0.5)).tolist() == [224.0, -224.0, 224.0, 224.0]


def test_gradients_pass_where_nothing_is_cut_off() -> None:
    """Straight through the rounding, and not beyond its ends."""
    x = torch.tensor([0.3, -100.0, 500.0, -500.0], requires_grad=True)
    torch.autograd.backward(round_to_float8(x, torch.tensor(1.0)).sum())

    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_has_a_scale_for_every_channel(axis: int) -> None:
    """The largest of each output channel is the largest float of 8 bits, hence exact."""
    weight = batch((6, 3, 3), 5)
    rounding = WeightRounding(weight, axis, get_grid("fp8"))
    others = [dim for dim in range(4) if dim != axis]
    largest = weight.abs().amax(others)

    torch.testing.assert_close(rounding.scale, largest / FP8_HIGH)
    torch.testing.assert_close(rounding(weight).abs().amax(others), largest)


def test_the_whole_range_ends_at_448_steps() -> None:
    """By the method that cuts nothing the largest value is the largest number; the zero point is 0."""
    assert choose_scale(seen_of([-1.0, 3.0]), get_grid("fp8"), "max") == Scale(3.0 / 448, 0)


@pytest.mark.parametrize("factor", [1.0, 3.7])
def test_the_least_squared_error_is_no_worse_than_the_whole_range(factor: float) -> None:
    """Measured on the values themselves; the bins of the histogram are the margin."""
    x = batch() * factor
    seen = Observed()
    seen.add(x)
    errors = []
    for method in METHODS:
        scale = torch.tensor(choose_scale(seen, get_grid("fp8"), method).scale)
        errors.append(float((round_to_float8(x, scale) - x).square().mean()))

    assert errors[0] <= 1.01 * errors[METHODS.index("max")]


def test_one_grid_serves_all_runtimes() -> None:
    """A runtime's grid is that of int8; where nothing is rounded to one there is none."""
    assert [grid_at(one, "uint8") for one in ("int8", "fp8", "fp16", "")] == ["uint8", "fp8", "", ""]


@pytest.mark.parametrize("deployed", [False, True])
@pytest.mark.parametrize("text", FAMILIES)
def test_the_file_computes_what_torch_does(text: str, deployed: bool) -> None:
    """A valid model of opset 19; ONNX's reference and ONNX Runtime without its joining agree with torch to 1e-4."""
    module, x = calibrated(text), batch(count=1)
    model = exported_model(module, x.shape)
    if deployed:
        model = deployed_model(model)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with torch.no_grad():
        expected = module(x).numpy()

    assert [entry.version for entry in model.opset_import if not entry.domain] == [19]
    assert np.mean(np.abs(session.run(None, {"input": x.numpy()})[0] - expected) > 1e-4) < 0.02
    results: Any = ReferenceEvaluator(model).run(None, {"input": x.numpy()})
    assert np.mean(np.abs(results[0] - expected) > 1e-4) < 0.02


def test_weights_are_floats_of_eight_bits_in_the_file() -> None:
    """As they are deployed no convolution has a weight in float32 left."""
    model = deployed_model(exported_model(calibrated("mbconv(expand=2)"), (1, *IMAGE)))
    large = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}

    assert large == {onnx.TensorProto.FLOAT8E4M3FN}


@pytest.mark.parametrize("text", FAMILIES)
def test_little_is_lost(text: str) -> None:
    """In fp8 a module gives what it gave in float32, up to a few hundredths of its power."""
    module, x = build_operation(parse_operation(text), IMAGE, IMAGE).eval(), batch()
    with torch.no_grad():
        wanted, given = module(x), calibrated(text)(x)

    assert float((given - wanted).square().mean()) < 0.02 * float(wanted.square().mean())
    assert not torch.equal(given, wanted)


def test_precisions_have_operators_of_their_own() -> None:
    """fp8, int8 and float32 are three keys; the scales decide nothing."""
    shape = (1, *IMAGE)
    texts = ("conv", "conv@int8", "conv@fp8")
    modules = [build_operation(parse_operation(text), IMAGE, IMAGE, grid="int8").eval() for text in texts]
    keys = [operator_key(exported_graph(module, shape)) for module in (*modules, calibrated("conv"))]

    assert len(set(keys)) == 3
    assert keys[2] == keys[3]


def test_a_module_is_trained_through_the_rounding() -> None:
    """Steps down the gradient bring it nearer to what it should give."""
    module, x = calibrated("conv").train(), batch()
    wanted = batch().flip(1).relu()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = (module(x) - wanted).square().mean()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())

    assert losses[-1] < 0.95 * losses[0]


def test_a_program_of_torch_export_computes_the_same() -> None:
    """The rounding is arithmetic there."""
    module, x = calibrated("basic(width=0.5)"), batch(count=1)
    program = torch.export.export(module, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), module(x), rtol=0, atol=0)


def test_layers_on_tokens_are_rounded_too() -> None:
    """Products with weights are in fp8, and their weights are floats of 8 bits."""
    module = at_precision(nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 16)).eval(), "fp8", TOKENS)
    assert isinstance(module, Quantised)
    model = deployed_model(exported_model(module, (1, *TOKENS)))
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 2}

    assert kinds == {onnx.TensorProto.FLOAT8E4M3FN}
    assert all(isinstance(value, ValueRounding) and value.is_float for value in module.values)


@pytest.mark.parametrize(("name", "words"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")])
def test_runtimes_of_cpus_have_no_such_kernels(name: str, words: str) -> None:
    """A campaign has a row ``unsupported``, not an operator in a time that no network made of it will have."""
    backend = backend_class(name)(Settings())
    graph = exported_graph(calibrated("conv"), (1, *IMAGE))

    with pytest.raises(UnsupportedOperator, match=f"{words} on a CPU has no kernels in float8_e4m3fn"):
        backend.compile(graph, seed=0)
