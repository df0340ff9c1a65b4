"""Where teachers come from: ``timm:NAME``, ``torchvision:NAME``, ``package.module:factory``."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from torch import Tensor, nn

from lanaprof.config import PRETRAINED
from lanaprof.errors import BadInput, UnknownTeacher
from lanaprof.ops import seeded
from lanaprof.teachers.imports import load_attribute
from lanaprof.teachers.padding import make_padding_static
from lanaprof.teachers.splitting import split_blocks
from lanaprof.teachers.weights import fit_weights, read_weights, state_digest

__all__ = ["PRETRAINED", "Teacher", "bare_teacher", "load_teacher"]

_SOURCES = "a TEACHER is timm:NAME, torchvision:NAME or package.module:factory"
# Options of the two libraries that would load or download weights behind our back.
_REFUSED = (
    "pretrained",
    "weights",
    "weights_backbone",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The trained network to accelerate.

    Args:
        text: as the user named it.
        module: in eval mode, float32, on the CPU; takes (N, *input_shape).
        input_shape: of one sample, (C, H, W).
        weights: where they are from, for people.
        weights_digest: digest of names, types, shapes and bytes of parameters and buffers, named as in the
            network's source.
        seeded: the weights are random, so the caller should warn.
        preprocessing: ``mean`` and ``std`` per channel (of values in 0…1), ``interpolation`` and
            ``crop_pct``, as far as known.
    """

    text: str
    module: nn.Module
    input_shape: tuple[int, ...]
    weights: str
    weights_digest: str
    seeded: bool
    preprocessing: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Named:
    """A network by name: how to make it, and what its library knows about it."""

    library: str
    name: str
    make: Callable[..., nn.Module]  # keyword arguments: pretrained, and the library's own
    input_shape: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    channels_option: str | None  # the keyword for another number of input channels
    size_option: str | None  # the keyword for another input size


def load_teacher(
    text: str,
    *,
    weights: str | Path | None = None,
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
    search_path: str | Path | None = None,
) -> Teacher:
    """Return the teacher that a text names.

    Args:
        text: ``timm:NAME[?num_classes=17&in_chans=1]``, ``torchvision:NAME[?...]`` or
            ``package.module:factory``. ``num_classes`` and ``in_chans`` are inferred from the weights.
        weights: a .safetensors, .pt or .pth file; ``"pretrained"`` asks the source, which may download;
            None: seeded random for named networks, the factory's own for factories. Nothing else downloads.
        input_shape: (C, H, W); None: the network's own size. Required for a factory.
        seed: of the random weights.
        search_path: the project folder, from which factories are imported.

    Raises:
        UnknownTeacher: no such network, option or factory; the weights are missing or do not fit.
        BadInput: the input shape is missing or wrong.
    """
    source, colon, _ = text.partition(":")
    if not colon:
        raise UnknownTeacher(f"{text!r} is no teacher", hint=_SOURCES)
    shape = None if input_shape is None else _checked_shape(input_shape)
    if source in ("timm", "torchvision"):
        return _named_teacher(text, weights, shape, seed)
    return _factory_teacher(text, weights, shape, search_path)


def bare_teacher(
    text: str,
    state: Mapping[str, Tensor],
    *,
    input_shape: Sequence[int],
    search_path: str | Path | None = None,
) -> nn.Module:
    """Return the network a text names with whatever weights, ready to take those of a student built from it.

    Args:
        text: as for ``load_teacher``.
        state: the student's weights; number of classes and input channels are inferred from them.
        input_shape: (C, H, W).
        search_path: from which factories are imported.

    Raises:
        UnknownTeacher: no such network, option or factory.
    """
    shape = _checked_shape(input_shape)
    source, _, rest = text.partition(":")
    if source not in ("timm", "torchvision"):
        return _factory_teacher(text, None, shape, search_path).module
    name, _, query = rest.partition("?")
    named = _timm(name) if source == "timm" else _torchvision(name)
    inferred = _inferred(named, state, _options(query, text))
    options = {key: value for key, value in inferred.items() if f"{key}=" not in query}
    extra = "&".join(f"{key}={value}" for key, value in options.items())
    return _named_teacher(f"{text}{'&' if query else '?'}{extra}" if extra else text, None, shape, 0).module


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(size) for size in input_shape)
    if not shape or any(size < 1 for size in shape):
        raise BadInput(f"the input {'x'.join(map(str, shape))!r} is no shape", hint="write it like 3x224x224")
    return shape


def _named_teacher(
    text: str, weights: str | Path | None, shape: tuple[int, ...] | None, seed: int
) -> Teacher:
    source, _, rest = text.partition(":")
    name, _, query = rest.partition("?")
    options = _options(query, text)
    named = _timm(name) if source == "timm" else _torchvision(name)
    pretrained = str(weights) == PRETRAINED
    state = None if weights is None or pretrained else read_weights(weights)
    if named.channels_option and shape is not None and shape[0] != named.input_shape[0]:
        options.setdefault(named.channels_option, shape[0])
    if state is not None:
        options = {**_inferred(named, state, options), **options}
    channels = options.get(named.channels_option or "", named.input_shape[0])
    own_shape = shape or (int(channels), *named.input_shape[1:])
    if named.size_option and own_shape[1:] != named.input_shape[1:]:
        options.setdefault(named.size_option, own_shape[1:])
    with seeded(seed):
        module = _make(named, text, pretrained=pretrained, **options)
    if state is not None:
        fit_weights(module, state, where=str(weights))
    module = module.eval().float()
    _check_forward(module, own_shape, text)
    weights_digest = _prepared(module, own_shape)
    described = PRETRAINED if pretrained else str(weights) if weights else f"seeded random (seed {seed})"
    return Teacher(
        text=text,
        module=module,
        input_shape=own_shape,
        weights=described,
        weights_digest=weights_digest,
        seeded=weights is None,
        preprocessing=named.preprocessing,
    )


def _options(query: str, text: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if not query:
        return options
    try:
        pairs = parse_qsl(query, strict_parsing=True)
    except ValueError as error:
        raise UnknownTeacher(
            f"{text!r}: {query!r} is not NAME=VALUE&…", hint="write it like ?num_classes=17"
        ) from error
    for name, value in pairs:
        if name in _REFUSED:
            raise UnknownTeacher(
                f"{text!r}: {name} is not an option here", hint="use --weights FILE or pretrained"
            )
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    if text in ("true", "True", "false", "False"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _make(named: _Named, text: str, *, pretrained: bool, **options: Any) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' advice to their own users
            return named.make(pretrained=pretrained, **options)
    except Exception as error:  # whatever a library raises for wrong options or without a network
        first = str(error).partition("\n")[0]
        if pretrained:
            raise UnknownTeacher(
                f"{named.library} has no weights of {named.name!r} for us: {type(error).__name__}: {first}",
                hint="check the network connection, or give a file: --weights F.safetensors",
            ) from error
        given = ", ".join(f"{name}={value}" for name, value in options.items()) or "no options"
        raise UnknownTeacher(
            f"{named.library} cannot make {text!r} with {given}: {type(error).__name__}: {first}",
            hint="change the options after the ?",
        ) from error


def _inferred(named: _Named, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return num_classes and input channels where the weights' shapes differ from the usual network's."""
    with seeded(0):
        try:
            default = _make(named, f"{named.library}:{named.name}", pretrained=False, **options)
        except UnknownTeacher:
            return {}  # the real attempt says what is wrong
    weighted = [name for name, child in default.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)]
    found: dict[str, Any] = {}
    if not weighted:
        return found
    own = default.state_dict()
    first, last = f"{weighted[0]}.weight", f"{weighted[-1]}.weight"
    if last in state and state[last].shape[0] != own[last].shape[0]:
        found["num_classes"] = state[last].shape[0]
    if named.channels_option and first in state and state[first].shape[1:2] != own[first].shape[1:2]:
        found[named.channels_option] = state[first].shape[1]
    return found


def _unknown(library: str, name: str, known: Sequence[str]) -> UnknownTeacher:
    close = difflib.get_close_matches(name, known, n=3) or [one for one in known if name and name in one][:3]
    guess = f"did you mean {', '.join(f'{library}:{one}' for one in close)}? " if close else ""
    return UnknownTeacher(
        f"{library} has no network {name!r}",
        hint=f"{guess}{library} has {len(known)} networks, e.g. {known[0]}",
    )


def _timm(name: str) -> _Named:
    import timm  # heavy

    architecture = name.partition(".")[0]
    if not name or not timm.is_model(architecture):
        raise _unknown("timm", name, timm.list_models())
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # the network exists, weights of this name do not
        tags = ", ".join(f"timm:{one}" for one in timm.list_pretrained(f"{architecture}.*")[:4])
        raise UnknownTeacher(
            f"timm has no network {name!r}",
            hint=f"write timm:{architecture}" + (f", or one of {tags}" if tags else ""),
        ) from error
    known: dict[str, Any] = {} if config is None else config.to_dict()  # type: ignore[no-untyped-call]
    keys = ("mean", "std", "interpolation", "crop_pct")
    preprocessing = {key: known[key] for key in keys if known.get(key) is not None}

    def make(*, pretrained: bool, **options: Any) -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, exportable=True, **options)
        return module

    return _Named(
        library="timm",
        name=name,
        make=make,
        input_shape=tuple(known.get("input_size") or (3, 224, 224)),
        preprocessing=preprocessing,
        channels_option="in_chans",
        size_option="img_size" if known.get("fixed_input_size") else None,
    )


def _torchvision(name: str) -> _Named:
    import torchvision  # heavy

    models = torchvision.models
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    size, preprocessing = 224, {}
    published = getattr(models.get_model_weights(name), "DEFAULT", None)
    if published is not None:
        transforms = published.transforms()
        size = transforms.crop_size[0]
        preprocessing = {
            "mean": tuple(transforms.mean),
            "std": tuple(transforms.std),
            "interpolation": transforms.interpolation.value,
            "crop_pct": transforms.crop_size[0] / transforms.resize_size[0],
        }

    def make(*, pretrained: bool, **options: Any) -> nn.Module:
        if isinstance(options.get("image_size"), tuple):
            options["image_size"] = options["image_size"][0]  # these networks take squares only
        module: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **options)
        return module

    return _Named(
        library="torchvision",
        name=name,
        make=make,
        input_shape=(3, size, size),
        preprocessing=preprocessing,
        channels_option=None,
        size_option="image_size" if name.startswith("vit_") else None,
    )


def _factory_teacher(
    text: str, weights: str | Path | None, shape: tuple[int, ...] | None, search_path: str | Path | None
) -> Teacher:
    if shape is None:
        raise BadInput(f"the teacher {text!r} does not say its input shape", hint="add --input 3x224x224")
    try:
        factory = load_attribute(text, search_path=search_path)
    except BadInput as error:
        raise UnknownTeacher(error.message, hint=f"{error.hint}; {_SOURCES}") from error
    if not callable(factory):
        raise UnknownTeacher(
            f"{text!r} cannot be called", hint="name a function that returns a torch.nn.Module"
        )
    try:
        module = factory()
    except Exception as error:
        raise UnknownTeacher(
            f"the factory {text!r} fails: {type(error).__name__}: {error}",
            hint="repair it; --debug shows where it fails",
        ) from error
    if not isinstance(module, nn.Module):
        raise UnknownTeacher(
            f"{text!r} returns {type(module).__name__} instead of a torch.nn.Module",
            hint="name a function that returns a torch.nn.Module",
        )
    if str(weights) == PRETRAINED:
        raise UnknownTeacher(
            f"the factory {text!r} is no source of pretrained weights",
            hint="leave --weights out: the module is taken as the factory returns it",
        )
    if weights is not None:
        fit_weights(module, read_weights(weights), where=str(weights))
    module = module.eval().float()
    _check_forward(module, shape, text)
    weights_digest = _prepared(module, shape)
    given = getattr(module, "preprocessing", None)
    return Teacher(
        text=text,
        module=module,
        input_shape=shape,
        weights="the factory's own" if weights is None else str(weights),
        weights_digest=weights_digest,
        seeded=False,
        preprocessing=dict(given) if isinstance(given, Mapping) else {},
    )


def _prepared(module: nn.Module, shape: tuple[int, ...]) -> str:
    """Rewrite a network in place so that it exports and divides well; return the digest of its weights.

    The digest is taken first: it names the weights as their source does, whatever is rewritten.
    """
    weights_digest = state_digest(module)
    make_padding_static(module, shape)
    split_blocks(module, shape)
    return weights_digest


def _check_forward(module: nn.Module, shape: tuple[int, ...], text: str) -> None:
    """Refuse a network that cannot take the input, in words instead of a shape error from deep inside."""
    try:
        with torch.no_grad():
            module(torch.zeros(1, *shape))
    except Exception as error:  # whatever a network's own code raises
        first = str(error).partition("\n")[0]
        raise BadInput(
            f"the teacher {text!r} cannot take an input of {'x'.join(map(str, shape))}: {first}",
            hint="give the size it was made for: --input 3x224x224",
        ) from error
