"""The user's own code: ``package.module:attribute``, from the project folder or what is installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from lanaprof.errors import BadInput

__all__ = ["load_attribute", "make_importable"]

# Folders whose modules may be forgotten: Python keeps one module per name, two projects may use the same.
_FOLDERS: set[Path] = set()


def load_attribute(text: str, *, search_path: str | Path | None = None) -> Any:
    """Return what ``package.module:attribute`` names.

    Args:
        text: as the user wrote it; the attribute may have dots.
        search_path: a folder that comes first on ``sys.path``, and stays there: the user's code may import
            its neighbours later. A module of the same name from another folder is replaced.

    Raises:
        BadInput: malformed, no such module, no such attribute, or the module fails while it is imported.
    """
    module_name, colon, attribute = text.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise BadInput(f"{text!r} names no Python object", hint="write it like package.module:function")
    folder = Path(search_path).resolve() if search_path is not None else None
    if folder is not None:
        make_importable(folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            where = (
                f" in {folder} or among the installed packages" if folder else " among the installed packages"
            )
            raise BadInput(
                f"there is no module {module_name!r}{where}",
                hint="put it into the project folder or install its package",
            ) from error
        raise BadInput(
            f"the module {module_name!r} needs another: {error}", hint="install what it needs"
        ) from error
    except Exception as error:
        raise BadInput(
            f"the module {module_name!r} fails while it is imported: {type(error).__name__}: {error}",
            hint="repair it; --debug shows where it fails",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = (
                [name for name in vars(found) if not name.startswith("_")]
                if hasattr(found, "__dict__")
                else []
            )
            raise BadInput(
                f"the module {module_name!r} has no {attribute!r}",
                hint=f"it has: {', '.join(sorted(names)[:12])}" if names else "it has no public names",
            )
        found = getattr(found, part)
    return found


def make_importable(folder: Path) -> None:
    """Make imports look into the folder first, and forget what another project's folder gave for its names.

    Args:
        folder: absolute; it stays on ``sys.path``.
    """
    if sys.path[:1] != [str(folder)]:
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
    others = _FOLDERS - {folder}
    _FOLDERS.add(folder)
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        origin = getattr(sys.modules.get(top, module), "__file__", None)
        if origin is None or not (
            (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
        ):
            continue
        home = Path(origin).resolve().parent
        if home in others or (home.name == top and home.parent in others):
            del sys.modules[name]
    importlib.invalidate_caches()
