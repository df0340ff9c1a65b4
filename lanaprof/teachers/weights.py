"""Weight files: read, unwrapped, digested, compared with what a network wants."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lanaprof.digest import digest
from lanaprof.errors import UnknownTeacher

__all__ = ["fit_weights", "read_weights", "state_digest"]

_SHOWN = 4  # mismatches in a message


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .pt or .pth file by name, on the CPU.

    ``state_dict`` and ``model`` around them and ``module.`` before their names are taken off. Nothing in
    the file is executed.

    Raises:
        UnknownTeacher: no such file, another kind of file, or it holds something else than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UnknownTeacher(f"there are no weights at {path}", hint="name a .safetensors, .pt or .pth file")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        state = _read_torch(path)
    else:
        raise UnknownTeacher(
            f"{path} has the unknown ending {path.suffix!r}", hint="lanaprof reads .safetensors, .pt and .pth"
        )
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # only for this format
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnknownTeacher(
            f"{path} is no readable safetensors file: {error}", hint="check that the file is complete"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnknownTeacher(
            f"{path} holds more than tensors, and lanaprof runs no code from weight files",
            hint="write it with torch.save(model.state_dict(), ...) or as safetensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise UnknownTeacher(
            f"{path} is no readable PyTorch file: {first}", hint="check that the file is complete"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UnknownTeacher(
            f"{path} holds no mapping of names to tensors",
            hint="write it with torch.save(model.state_dict(), ...) or as safetensors",
        )
    return {str(name): tensor for name, tensor in loaded.items()}


def fit_weights(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load tensors into a module, all of them or none.

    Raises:
        UnknownTeacher: names or shapes differ; the message names the first few.
    """
    wanted = module.state_dict()
    # counters of training steps are in newer files only, and nothing reads them in eval mode
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in wanted and not name.endswith("num_batches_tracked")]
    other = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    if missing or extra or other:
        found = {"missing": missing, "unknown": extra, "other shapes": other}
        parts = [f"{title}: {_few(names)}" for title, names in found.items() if names]
        raise UnknownTeacher(
            f"the weights in {where} do not fit the network ({'; '.join(parts)})",
            hint="name the network these weights were trained for, with ?num_classes=N if its head differs",
        )
    module.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)


def _few(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def state_digest(module: nn.Module) -> str:
    """Return the digest of a module's parameters and buffers: names, types, shapes and bytes."""
    entries = []
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        raw = flat.view(torch.uint8).numpy() if flat.numel() else b""
        entries.append([name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(raw).hexdigest()])
    return digest(entries)
