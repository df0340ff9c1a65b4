"""What a translation to torch sees of a node: :class:`NodeView`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["KINDS", "NodeView", "NotTranslated", "torch_pads"]

KINDS: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


class NotTranslated(Exception):
    """This operator has no translation, or not with these attributes."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a canonical graph says of a node.

    Attributes:
        op: ONNX's name of the operator.
        attributes: those that differ from ONNX's defaults.
        inputs: of each input its ``shape`` and ``type``, and its ``value`` where that is known; empty for an input that
            is left out.
        outputs: likewise.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]

    def get(self, name: str, default: Any) -> Any:
        """Return an attribute, or ONNX's default."""
        return self.attributes.get(name, default)

    def shape(self, position: int) -> tuple[int, ...]:
        """Return the shape of an input."""
        return tuple(self.inputs[position]["shape"])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Return the shape of the first output."""
        return tuple(self.outputs[0]["shape"])

    @property
    def output_kind(self) -> torch.dtype:
        """Return the type of the first output."""
        return KINDS[self.outputs[0]["type"]]

    def has(self, position: int) -> bool:
        """Say whether an input is given."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def value(self, position: int) -> Any:
        """Return what a constant input holds: a number, or a flat list of them.

        Raises:
            NotTranslated: the input is computed.
        """
        if "value" not in self.inputs[position]:
            raise NotTranslated(f"{self.op} whose input {position} is computed")
        return self.inputs[position]["value"]

    def whole_numbers(self, position: int) -> list[int]:
        """Return a constant input as whole numbers; empty where it is left out."""
        if not self.has(position):
            return []
        found = self.value(position)
        return [int(number) for number in (found if isinstance(found, list) else [found])]

    def axis(self, default: int) -> int:
        """Return the attribute ``axis``."""
        return int(self.get("axis", default))

    def only(self, **allowed: Any) -> None:
        """Refuse attributes that have another value than the one translated.

        Raises:
            NotTranslated: one has.
        """
        for name, value in allowed.items():
            if self.get(name, value) != value:
                raise NotTranslated(f"{self.op} with {name}={self.attributes[name]!r}")

    def padding(self, dimensions: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the padding that both ends share per dimension, and what is left for torch's ``pad``.

        Raises:
            NotTranslated: it follows from the input's shape.
        """
        if self.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise NotTranslated(f"{self.op} with auto_pad={self.attributes['auto_pad']!r}")
        pads = list(self.get("pads", [0] * 2 * dimensions))
        begins, ends = pads[:dimensions], pads[dimensions:]
        if begins == ends:
            return tuple(begins), ()
        return (0,) * dimensions, torch_pads(begins, ends)


def torch_pads(begins: Sequence[int], ends: Sequence[int]) -> tuple[int, ...]:
    """Return ONNX's pads in torch's order: the last dimension first, its begin and its end."""
    return tuple(n for pair in reversed(list(zip(begins, ends, strict=True))) for n in pair)
