"""Imports in `kerassl` go down the rooms of docs/design.md, without circles."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

from tests.backends import once

pytestmark = once

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kerassl"
IMPORTS = ast.Import | ast.ImportFrom
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")
BLOCK = re.search(r"^## Rooms$.*?^```\n(.*?)^```$", DESIGN, re.S | re.M)
ROOMS = [line.split()[0] for line in BLOCK[1].splitlines()]


def level(name):
    single_file = name == "__version__" or (PACKAGE / f"{name}.py").exists()
    return len(ROOMS) if single_file else ROOMS.index(name)


def test_imports_go_down_or_stay_in_their_room():
    assert "design.md#rooms" in (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            before = f"{node.module}." if hasattr(node, "module") else ""
            for alias in node.names if isinstance(node, IMPORTS) else ():
                root, target = f"{before}{alias.name}.".split(".")[:2]
                if root == "kerassl" and room[0] != "_":
                    assert level(target) >= level(room), f"{path}: {target}"


def imported(path, modules):
    """Yields the modules that a file imports, also within functions."""

    def names_types(test):
        return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"

    def walk(node):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif not (isinstance(node, ast.If) and names_types(node.test)):
            for child in ast.iter_child_nodes(node):
                yield from walk(child)

    return walk(ast.parse(path.read_text("utf-8")))


def test_no_module_imports_itself_through_others():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    # Every import loads the package's own `__init__` first.
    del modules["kerassl"]
    graph = {
        name: modules.keys() & set(imported(path, modules))
        for name, path in modules.items()
    }
    list(TopologicalSorter(graph).static_order())  # Raises CycleError.
