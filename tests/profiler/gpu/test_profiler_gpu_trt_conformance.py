"""What we use of TensorRT is there: typings/tensorrt held against NVIDIA's own bindings of four versions.

mypy holds our code against the same file; nothing is listed twice by hand. The bindings are imported over empty
libraries, in a child process per version: no GPU, no TensorRT.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lanaprof.profiler.backends import trt_api
from lanaprof.profiler.gpu.support import version_of

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STUB = ROOT / "typings" / "tensorrt" / "__init__.pyi"
BACKENDS = ROOT / "lanaprof" / "profiler" / "backends"


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / "bindings" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch, doubles = loaded("fetch"), loaded("doubles")

VERSIONS = tuple(fetch.PACKAGES)
at_every_version = pytest.mark.parametrize("version", VERSIONS)


def used_of_tensorrt() -> dict[str, Any]:
    """Return what the stub declares: class → methods with their arguments, and the other names in it."""
    found: dict[str, Any] = {}
    for path, node in classes_of(ast.parse(STUB.read_text(encoding="utf-8")).body):
        methods: dict[str, list[str]] = {}
        others: list[str] = []
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                plain = not item.decorator_list and (
                    not item.name.startswith("__") or item.name == "__init__"
                )
                if plain:
                    methods[item.name] = [argument.arg for argument in item.args.args[1:]]
                elif item.decorator_list:
                    others.append(item.name)
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                others.append(item.target.id)
            elif isinstance(item, ast.Assign):
                others.extend(target.id for target in item.targets if isinstance(target, ast.Name))
        found[path] = {"methods": methods, "others": others}
    return found


def classes_of(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from classes_of(node.body, f"{prefix}{node.name}.")


@cache
def report_of(version: str) -> dict[str, Any]:
    """Return what a version's bindings have, or skip where they cannot be had."""
    try:
        environment = fetch.environment_of(version)
    except fetch.CannotFetch as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, str(HERE / "bindings" / "report.py")],
        input=json.dumps({"classes": used_of_tensorrt()}),
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def has(name: str, version: str) -> bool:
    first, before = trt_api.LACKING[name]
    return first <= version_of(version) < before


@at_every_version
def test_the_bindings_are_those_asked_for(version: str) -> None:
    """No other TensorRT of the machine answers in their place."""
    assert version == report_of(version)["version"]


@at_every_version
def test_every_name_is_there(version: str) -> None:
    """Classes, methods, properties and members, but for those that are said to be lacking."""
    lacking = {name for name in trt_api.LACKING if "(" not in name and not has(name, version)}

    assert lacking == set(report_of(version)["missing"])


@at_every_version
def test_guards_say_what_is_there(version: str) -> None:
    """What our code asks for before it is used is there in exactly the versions that the table says."""
    expected = {name: has(name, version) for name in trt_api.LACKING if "(" not in name}

    assert expected == report_of(version)["guarded"]


@at_every_version
def test_every_argument_is_there(version: str) -> None:
    """Methods take the stub's arguments, by these names and in this order, but for those said to be lacking."""
    lacking = [name for name in trt_api.LACKING if "(" in name and not has(name, version)]

    assert lacking == report_of(version)["wrong"]


@at_every_version
def test_networks_are_made_as_the_version_wants(version: str) -> None:
    """Explicit batch until 10, strongly typed from 10 on; each where the enumeration has it."""
    report = report_of(version)

    assert sum(report["flags"].values()) == report["network_flags"]
    assert report["strongly_typed"] == (version_of(version) >= (10,))


@at_every_version
def test_our_logger_is_one_of_theirs(version: str) -> None:
    """It can be created, called and read, each message in one line."""
    assert report_of(version)["logged"] == [["a warning"], "an error"]


@at_every_version
def test_a_builder_that_cannot_be_made_is_an_error(version: str) -> None:
    """The empty libraries give none: a sentence, no crash."""
    assert report_of(version)["refused"].startswith("TensorRT could not build the operator: ")


def test_the_newest_knows_all_types() -> None:
    """The names of types are theirs; 8.6 has no bfloat16 and no int64."""
    assert sorted(trt_api.KINDS) == report_of(VERSIONS[-1])["kinds"]
    assert {"BF16", "INT64"} == set(trt_api.KINDS) - set(report_of(VERSIONS[0])["kinds"])


def test_nothing_is_declared_in_vain() -> None:
    """Every name of the stub occurs in our code, as an attribute or within a text that is looked up."""
    occurring: set[str] = set()
    for path in BACKENDS.glob("t*rt*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                occurring.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                occurring.update(node.value.split("."))
    declared = {
        name
        for described in used_of_tensorrt().values()
        for name in [*described["methods"], *described["others"]]
        if name != "__init__"
    }

    assert declared - occurring == set()


def test_what_is_asked_for_is_in_the_table() -> None:
    """A guard on a name without an entry would be held against no version."""
    asked: set[str] = set()
    for path in BACKENDS.glob("t*rt*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "has"
            ):
                asked.update(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))

    assert asked <= set(trt_api.LACKING)
    assert asked


@at_every_version
def test_our_double_has_nothing_that_nvidias_lacks(version: str) -> None:
    """What stands for TensorRT in other tests takes the same arguments under the same names."""
    module = doubles.scripted_module(doubles.Script(), trt_api.Messages(), version)
    declared, seen = used_of_tensorrt(), 0
    for name, found in vars(module).items():
        if not inspect.isclass(found) or found.__module__ != doubles.__name__:
            continue
        for method, function in vars(found).items():
            if method.startswith("_") or method == "parsed" or not inspect.isfunction(function):
                continue  # "parsed" is between the double's own parser and network
            given = [argument for argument in inspect.signature(function).parameters if argument != "self"]
            assert (f"{name}.{method}", declared[name]["methods"].get(method)) == (f"{name}.{method}", given)
            seen += 1

    assert seen > 20
