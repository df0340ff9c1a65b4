"""Small teachers, made once."""

from __future__ import annotations

import pytest
import torch

from lanaprof.space import Space
from lanaprof.teachers import Teacher, find_layers, load_teacher, make_space


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def resnet() -> Teacher:
    """ResNet-10 at 32×32: four layers."""
    return load_teacher("timm:resnet10t?num_classes=10", input_shape=(3, 32, 32))


@pytest.fixture(scope="session")
def mobilenet() -> Teacher:
    """MobileNetV3 at 64×64 with TensorFlow's padding."""
    return load_teacher("timm:tf_mobilenetv3_small_minimal_100?num_classes=10", input_shape=(3, 64, 64))


@pytest.fixture(scope="session")
def resnet_space(resnet: Teacher) -> Space:
    """The quick space of the ResNet."""
    return make_space(resnet, find_layers(resnet))
