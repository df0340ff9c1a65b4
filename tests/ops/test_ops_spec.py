"""Operations and their text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanaprof.errors import UnknownOperation
from lanaprof.ops import PRECISIONS, Operation, Parameter, Value, families, make_operation, parse_operation


def _values(parameter: Parameter) -> st.SearchStrategy[Value]:
    if parameter.allowed:
        return st.sampled_from(parameter.allowed)
    if isinstance(parameter.default, bool):
        return st.booleans()
    assert parameter.low is not None
    assert parameter.high is not None
    if isinstance(parameter.default, int):
        return st.integers(int(parameter.low), int(parameter.high))
    return st.floats(parameter.low, parameter.high)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """Any valid operation of any family."""
    family = draw(st.sampled_from(families()))
    parameters = {one.name: draw(_values(one)) for one in family.parameters if draw(st.booleans())}
    return make_operation(family.name, parameters, precision=draw(st.sampled_from(("", *PRECISIONS))))


@given(operations())
def test_text_means_the_operation_it_was_written_from(operation: Operation) -> None:
    """Parsing an operation's text gives the same operation."""
    assert parse_operation(operation.text) == operation


@given(operations(), st.randoms())
def test_order_and_white_space_do_not_matter(operation: Operation, rng: object) -> None:
    """Every parameter written out, in any order and with spaces, is the same operation."""
    from lanaprof.ops.family import format_value

    pieces = [f" {name} = {format_value(value)} " for name, value in operation.parameters]
    rng.shuffle(pieces)  # type: ignore[attr-defined]
    written = f" {operation.family} ({','.join(pieces)}) " + (
        f"@ {operation.precision} " if operation.precision else ""
    )

    assert parse_operation(written) == operation


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("mbconv(kernel=5,expand=4)@int8", "mbconv(expand=4,kernel=5)@int8"),
        ("mbconv(expand=6,kernel=3)", "mbconv"),
        ("conv()", "conv"),
        ("mbconv(expand=2.50)", "mbconv(expand=2.5)"),
        ("mbconv(expand=4.0)", "mbconv(expand=4)"),
        ("skip", "skip"),
    ],
)
def test_text_prints_only_what_differs_in_declared_order(written: str, canonical: str) -> None:
    """Defaults are left out, the order is the family's, whole floats are short."""
    assert parse_operation(written).text == canonical


def test_parameters_are_complete() -> None:
    """An operation carries its defaults, so that recipes see every value."""
    assert parse_operation("basic(width=0.5)").parameters == (
        ("kernel", 3),
        ("width", 0.5),
        ("act", "relu"),
        ("out", "relu"),
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("mbconf", "no operation family 'mbconf'", "did you mean mbconv?"),
        ("nonsense", "no operation family", "known families: teacher, skip, conv"),
        ("conv(width=1)", "conv has no parameter 'width'", "its parameters: kernel, groups, act"),
        ("skip(kernel=3)", "skip has no parameter 'kernel'", "takes no parameters"),
        ("conv(kernel=4)", "conv has no kernel=4", "kernel of conv may be: 1, 3, 5, 7"),
        ("conv(kernel=3.0)", "conv has no kernel=3.0", "1, 3, 5, 7"),
        ("mbconv(expand=nan)", "mbconv has no expand=nan", "0.015625 to 16"),
        ("mbconv(expand=99)", "mbconv has no expand=99", "0.015625 to 16"),
        ("conv(groups=0)", "conv has no groups=0", "1 to 4096"),
        ("conv(act=swish)", "conv has no act=swish", "relu, relu6, silu"),
        ("conv(kernel=3,kernel=5)", "names kernel twice", "keep one"),
        ("conv(kernel)", "'kernel' in 'conv(kernel)' is not NAME=VALUE", "write it like"),
        ("conv(kernel=)", "is not NAME=VALUE", "write it like"),
        ("conv(kernel=3", "'conv(kernel=3' is not an operation", "write it like"),
        ("", "'' is not an operation", "write it like"),
        ("conv@int4", "no precision 'int4'", "fp32, fp16, bf16, int8, fp8"),
    ],
)
def test_errors_say_what_there_is(text: str, message: str, hint: str) -> None:
    """A wrong text is refused with what was asked and what is there."""
    with pytest.raises(UnknownOperation) as caught:
        parse_operation(text)

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_made_operations_are_checked_too() -> None:
    """Values of another type are refused, not converted by chance."""
    with pytest.raises(UnknownOperation, match="conv has no kernel=true"):
        make_operation("conv", {"kernel": True})
