"""int8 and 16 bits: what is rounded, by which scales, and that runtimes compute what torch does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lanaprof.errors import UnknownOperation, UnsupportedOperator
from lanaprof.ops import at_precision, at_precisions, build_operation, parse_operation
from lanaprof.ops.quantising import get_grid
from lanaprof.ops.quantising.folding import fold_batch_norms
from lanaprof.ops.quantising.module import Quantised, ValueRounding
from lanaprof.ops.quantising.ranges import METHODS, Observed, Scale, choose_scale
from lanaprof.profiler.export import exported_model

SHAPE = (8, 12, 12)


def learnt(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module with statistics that are not its initial ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.named_buffers():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if "var" in name else 0.0))
    return module.eval()


def batch(count: int = 8, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def calibrated(module: nn.Module, grid: str = "uint8", x: Tensor | None = None) -> Quantised:
    """Return the module in int8, calibrated on a batch."""
    x = batch() if x is None else x
    made = at_precision(module, "int8", tuple(x.shape[1:]), grid=grid)
    assert isinstance(made, Quantised)
    seen = [Observed() for _ in made.values]
    with torch.no_grad():
        y = made.observe(x, seen)
    before, behind = Observed(), Observed()
    before.add(x)
    behind.add(y)
    made.calibrate(seen, border=(before, behind))
    return made


def seen_of(values: list[float]) -> Observed:
    observed = Observed()
    observed.add(torch.tensor(values))
    return observed


def rounded(values: np.ndarray, scale: Scale, grid: str) -> np.ndarray:
    """Return what the grid's numbers stand for."""
    known = get_grid(grid)
    numbers = np.clip(np.round(values / scale.scale) + scale.zero_point, known.low, known.high)
    return (numbers - scale.zero_point) * scale.scale


# No denormals: other tests of this process may have switched them off.
VALUES = st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=1, max_size=50)


@settings(deadline=None, max_examples=60)
@given(values=VALUES, grid=st.sampled_from(("uint8", "int8")), method=st.sampled_from(METHODS))
def test_zero_is_exact_on_every_grid(values: list[float], grid: str, method: str) -> None:
    """Zero, which paddings and ReLUs are made of, is one of the numbers."""
    scale = choose_scale(seen_of(values), get_grid(grid), method)

    assert rounded(np.zeros(1), scale, grid)[0] == 0
    assert scale.scale > 0
    assert get_grid(grid).low <= scale.zero_point <= get_grid(grid).high


@settings(deadline=None, max_examples=60)
@given(values=VALUES, grid=st.sampled_from(("uint8", "int8")))
def test_the_whole_range_is_off_by_half_a_step_at_most(values: list[float], grid: str) -> None:
    """By the method that cuts nothing, no value is off by more than half a step, or one at the ends."""
    scale = choose_scale(seen_of(values), get_grid(grid), "max")
    array = np.asarray(values)

    assert np.all(np.abs(rounded(array, scale, grid) - array) <= 1.01 * scale.scale)


@settings(deadline=None, max_examples=40)
@given(values=VALUES, grid=st.sampled_from(("uint8", "int8")))
def test_the_least_squared_error_is_no_worse_than_the_whole_range(values: list[float], grid: str) -> None:
    """What is cut is cut for the others' sake; the histogram's bins are the margin."""
    seen, array = seen_of(values), np.asarray(values)
    errors = {
        method: float(
            np.mean((rounded(array, choose_scale(seen, get_grid(grid), method), grid) - array) ** 2)
        )
        for method in ("mse", "max")
    }
    margin = (max(0.0, *values) - min(0.0, *values)) / 2048

    assert errors["mse"] <= errors["max"] + 2 * margin * np.sqrt(errors["max"]) + margin**2 + 1e-9


def test_a_symmetric_grid_has_its_zero_in_the_middle() -> None:
    """TensorRT takes a zero point of 0 and nothing else."""
    assert choose_scale(seen_of([-1.0, 3.0]), get_grid("int8"), "max") == Scale(3.0 / 127, 0)


def test_behind_a_relu_all_numbers_of_uint8_are_used() -> None:
    """Where nothing is negative the zero point is the least number."""
    assert choose_scale(seen_of([0.0, 5.1]), get_grid("uint8"), "max").zero_point == 0


def test_an_unknown_grid_is_refused() -> None:
    """The message lists those there are."""
    with pytest.raises(UnknownOperation, match="no grid 'int4'"):
        get_grid("int4")


class Shared(nn.Module):
    """A batch norm whose input somebody else reads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 8, height, width)."""
        y = self.conv(x)
        result: Tensor = self.norm(y) + y
        return result


def test_folding_changes_nothing_that_comes_out() -> None:
    """Every batch norm behind a convolution goes; the module computes what it did."""
    module = learnt(build_operation(parse_operation("mbconv(se=0.25)"), SHAPE, SHAPE))
    x = batch()
    with torch.no_grad():
        before = module(x)
        folded = fold_batch_norms(module, x)
        after = module(x)

    assert len(folded) == 3
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_what_others_read_is_not_folded() -> None:
    """A convolution whose result has a second reader keeps its batch norm."""
    module = learnt(Shared())

    assert fold_batch_norms(module, batch()) == ()


FAMILIES = (
    "conv", "conv(kernel=1,act=none)", "ds", "mbconv", "mbconv(expand=2,se=0.25)", "mbconv(expand=2,act=hswish)",
    "fused_mbconv(expand=2)", "basic(width=0.5)", "bottleneck(width=0.25)", "repvgg",
)  # fmt: skip


@pytest.mark.parametrize("grid", ["uint8", "int8"])
@pytest.mark.parametrize("text", FAMILIES)
def test_onnx_runtime_computes_what_torch_does(text: str, grid: str) -> None:
    """The exported file and the module agree to a step of the output's grid, on nearly all values to none."""
    module = calibrated(learnt(build_operation(parse_operation(text), SHAPE, SHAPE)), grid)
    x = batch(1)
    model = exported_model(module, x.shape)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = module(x).numpy()
    given_steps = session.run(None, {"input": x.numpy()})[0] - expected
    assert module.output_place is not None
    rounding = module.values[module.output_place]
    assert isinstance(rounding, ValueRounding)
    step = float(rounding.scale)

    assert np.abs(given_steps).max() <= 2.5 * step
    assert np.mean(np.abs(given_steps) > 0.5 * step) < 0.02


@pytest.mark.parametrize("text", FAMILIES)
def test_little_is_lost(text: str) -> None:
    """In int8 a module gives what it gave in float32, up to a few hundredths of its power."""
    module = learnt(build_operation(parse_operation(text), SHAPE, SHAPE))
    x = batch()
    with torch.no_grad():
        wanted, given = module(x), calibrated(module)(x)

    assert float((given - wanted).square().mean()) < 0.003 * float(wanted.square().mean())


def test_a_layer_begins_and_ends_on_the_grid() -> None:
    """Input and output are rounded at places of their own: neighbours in int8 take the numbers as they are."""
    module = calibrated(build_operation(parse_operation("basic"), SHAPE, SHAPE).eval())

    assert module.input_place is not None
    assert module.output_place is not None
    assert module.input_place != module.output_place


def test_the_borders_have_the_scales_they_are_given() -> None:
    """Whoever stands in a layer agrees with the neighbours on the scale between them."""
    module = at_precision(build_operation(parse_operation("conv"), SHAPE, SHAPE).eval(), "int8", SHAPE)
    assert isinstance(module, Quantised)
    border = (seen_of([0.0, 255.0]), seen_of([0.0, 510.0]))
    module.calibrate([seen_of([0.0, 1.0]) for _ in module.values], border=border, method="max")

    assert module.values[module.input_place or 0].scale == 1.0
    assert module.values[module.output_place or 0].scale == 2.0


def test_a_largest_pooling_keeps_its_scale() -> None:
    """The largest of some numbers is one of them: one place serves both sides of a pooling."""
    layers = [nn.Conv2d(8, 8, 1), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(8, 8, 1)]
    module = calibrated(nn.Sequential(*layers))

    assert len(module.values) == 3  # input, behind the first convolution, output


def test_what_is_overwritten_in_place_is_rounded_anew() -> None:
    """An activation that works in place leaves no stale values behind."""
    inside = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(inplace=True), nn.Conv2d(8, 8, 1))
    outside = nn.Sequential(inside[0], nn.Hardswish(), inside[2])
    x = batch()
    with torch.no_grad():
        given, expected = calibrated(inside)(x.clone()), calibrated(outside)(x.clone())

    torch.testing.assert_close(given, expected, rtol=0, atol=0)


def test_gradients_reach_the_weights() -> None:
    """A module in int8 is trained through its rounding."""
    module = calibrated(build_operation(parse_operation("conv"), SHAPE, SHAPE)).train()
    torch.autograd.backward(module(batch()).square().mean())
    weights = [parameter for name, parameter in module.named_parameters() if name.endswith("weight")]

    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


def test_scales_come_back() -> None:
    """What was calibrated once is loaded into the same module; another one refuses it."""
    first = calibrated(learnt(build_operation(parse_operation("basic"), SHAPE, SHAPE)))
    second = at_precision(learnt(build_operation(parse_operation("basic"), SHAPE, SHAPE)), "int8", SHAPE)
    other = at_precision(build_operation(parse_operation("conv"), SHAPE, SHAPE), "int8", SHAPE)
    assert isinstance(second, Quantised)
    assert isinstance(other, Quantised)
    second.load_scales(first.scales())

    with torch.no_grad():
        torch.testing.assert_close(second(batch()), first(batch()), rtol=0, atol=0)
    with pytest.raises(UnsupportedOperator, match="another module's"):
        other.load_scales(first.scales())


@pytest.mark.parametrize(("precision", "error"), [("fp16", 1e-5), ("bf16", 1e-3)])
def test_sixteen_bits_lie_near_float32(precision: str, error: float) -> None:
    """Weights and activations are cast; what goes in and comes out is float32."""
    module = learnt(build_operation(parse_operation("mbconv(expand=2)"), SHAPE, SHAPE))
    x = batch()
    with torch.no_grad():
        wanted, given = module(x), at_precision(module, precision, SHAPE)(x)

    assert given.dtype == torch.float32
    assert float((given - wanted).square().mean()) < error * float(wanted.square().mean())
    assert not torch.equal(given, wanted)


def test_twins_stand_behind_what_they_are_twins_of() -> None:
    """Every operation that multiplies gets one; skip, pooling and what names a precision of its own do not."""
    operations = tuple(map(parse_operation, ("teacher", "skip", "conv", "conv(kernel=1)@fp16")))
    texts = [one.text for one in at_precisions(operations, ("int8",), SHAPE, SHAPE)]

    assert texts == ["teacher", "skip", "conv", "conv(kernel=1)@fp16", "teacher@int8", "conv@int8"]
