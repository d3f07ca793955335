"""What presets may import."""

import ast
from pathlib import Path

import kerassl

PRESETS = Path(kerassl.__file__).parent / "presets"
NEEDED = {
    "choices",
    "encoders",
    "environment",
    "export_formats",
    "files",
    "image_format",
    "layers",
    "models",
    "names",
    "networks",
    "presets",
    "reading",
    "registry",
    "renamed",
    "run_folder",
    "value_range",
    "__version__",
}


def imported(path):
    """Yields the full names that a file imports from kerassl."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = getattr(node, "names", ())
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in names)


def test_presets_know_neither_runs_nor_recipes():
    for path in PRESETS.rglob("*.py"):
        for name in imported(path):
            package, _, rest = name.partition(".")
            if package == "kerassl":
                assert rest.split(".")[0] in NEEDED, f"{path.name}: {name}"


def test_the_format_is_a_closed_room():
    paths = list((PRESETS / "format").glob("*.py"))
    assert len(paths) >= 10
    for path in paths:
        for name in imported(path):
            if name.startswith("kerassl.presets"):
                assert name.startswith("kerassl.presets.format."), (
                    f"{path.name}: {name}"
                )
