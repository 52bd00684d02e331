"""The house: rooms import downwards only, modules never in a ring, and the door opens fast."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from inspect import getdoc
from pathlib import Path

import pytest
from conftest import ROOT

import routedk_lite as rdk

ROOMS = ("", "data", "teacher", "student", "fusion", "answers", "analysis", "study", "report", "book")
"""From the ground up; the first is the package's root, whose `__init__` and `__main__` stand above all others."""
PACKAGE = ROOT / "routedk_lite"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "assets" not in path.parts
}
ABOVE_ALL = ("__init__", "__main__")
DOOR_PAGE = ROOT / "book/api/index.md"


def room(module: str) -> str:
    """Return the room of a module, or of a package."""
    first, _, rest = module.partition(".")
    return first if rest or first in ROOMS else ""


def imports(module: str) -> set[str]:
    """Return the package's modules that a module imports, inside functions and for type checkers too."""
    parts = module.split(".")
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("routedk_lite")]
            assert not names, f"{module}: imports inside the package are relative, not {names}"
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: -node.level] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in MODULES else ".".join(base))
    return {name if name in MODULES else f"{name}.__init__" for name in found} & set(MODULES)


GRAPH = {module: imports(module) - {"__init__"} for module in MODULES if module not in ABOVE_ALL}


def test_every_module_has_a_room() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(ROOMS[1:])


@pytest.mark.parametrize("module", GRAPH)
def test_no_import_runs_upward(module: str) -> None:
    floor = ROOMS.index(room(module))
    wrong = [used for used in GRAPH[module] if ROOMS.index(room(used)) > floor]
    assert not wrong, f"{module} ({room(module) or 'root'}) imports from rooms above it"


def test_no_import_runs_round() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_tests_are_laid_out_as_the_rooms() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == set(ROOMS[1:])


# The door


def test_the_door_is_light_and_fast() -> None:
    code = (
        "import time, sys; start = time.perf_counter(); import routedk_lite; "
        "print(time.perf_counter() - start, [m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    seconds = []
    for _ in range(5):  # a busy machine is no fault: the fastest of a few counts
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        took, loaded = out.split(maxsplit=1)
        assert loaded.strip() == "[]"
        seconds.append(float(took))
        if seconds[-1] < 0.3:
            return
        time.sleep(1)
    pytest.fail(f"import routedk_lite took {min(seconds):.2f} s at best")


@pytest.mark.parametrize("name", rdk.__all__)
def test_names_of_the_door_exist_and_are_described(name: str) -> None:
    (module,) = (module for module, names in rdk.DOOR.items() if name in names)
    assert getattr(rdk, name) is getattr(import_module(f"routedk_lite.{module}"), name)
    assert getdoc(getattr(rdk, name))
    assert name in dir(rdk)
    assert f"{{py:obj}}`{name} <routedk_lite.{module}.{name}>`" in DOOR_PAGE.read_text(encoding="utf-8")


def test_a_name_behind_the_door_is_pointed_to() -> None:
    with pytest.raises(AttributeError, match=r"'RoutedLinear'; the door offers .*RoutedModel.* from their rooms"):
        _ = rdk.RoutedLinear


# The API pages


def documented(page: Path) -> list[str]:
    """Return the modules that a page documents, in order."""
    return re.findall(r"automodule:: routedk_lite\.([\w.]+)", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ROOMS)
def test_every_module_stands_on_the_page_of_its_room(name: str) -> None:
    modules = {module.removesuffix(".__init__") for module in MODULES if room(module) == name}
    listed = documented(ROOT / "book/api" / f"{name or 'root'}.md")
    assert sorted(listed) == sorted(modules - set(ABOVE_ALL) - {""})
    assert not name or listed[0] == name  # the room's own words and its example come first


def test_members_that_a_page_names_exist() -> None:
    named = re.compile(r"automodule:: (routedk_lite[\w.]*)\n +:members: (.+)")
    found = [match for page in sorted((ROOT / "book/api").glob("*.md")) for match in named.findall(page.read_text())]
    assert found
    for module, members in found:
        missing = {name.strip() for name in members.split(",")} - set(dir(import_module(module)))
        assert not missing, f"{module} has no {', '.join(sorted(missing))}"


@pytest.mark.parametrize("name", ROOMS[1:])
def test_every_room_opens_with_an_example(name: str) -> None:
    examples = re.findall(r"^>>> (.*)$", getdoc(import_module(f"routedk_lite.{name}")), re.MULTILINE)
    assert 3 <= len(examples) <= 9  # run as doctests
    assert max(map(len, examples)) <= 76, "longer lines are cut off on the page"
