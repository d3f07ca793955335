"""Lists the methods in the documentation, when mkdocs builds it.

`<!-- api:methods -->` becomes the reference of all classes, and the navigation
gets a page for each method. Both come from `kerassl/registry.py`.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def _registry() -> Any:
    """Loads the registry by its path, since `import kerassl` loads Keras."""
    name = "kerassl_registry"
    path = ROOT / "kerassl" / "registry.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


REGISTRY = _registry()
ENTRIES = list(REGISTRY.entries().values())


def page_title(page: str) -> str:
    """Returns the title of a method's page: its first heading."""
    text = (ROOT / "docs" / "methods" / f"{page}.md").read_text("utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def on_config(config: Any) -> Any:
    """Adds the methods' pages to the navigation."""
    pages = dict.fromkeys(entry.page for entry in ENTRIES)
    (methods,) = (
        section["Methods"] for section in config.nav if "Methods" in section
    )
    methods += [{page_title(page): f"methods/{page}.md"} for page in pages]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts the directives of mkdocstrings for all classes at the marker."""
    classes = dict.fromkeys(entry.class_name for entry in ENTRIES)
    directives = "\n\n".join(f"::: kerassl.{name}" for name in classes)
    return markdown.replace("<!-- api:methods -->", directives)
