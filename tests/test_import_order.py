"""Imports inside `kerassl` go down the list of rooms in docs/design.md."""

import ast
import re
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
