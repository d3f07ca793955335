"""Tries an installed kerassl as a new user would; `scripts/release` runs it.

    python scripts/try_release.py README.md

Run it outside of the clone. It writes into the current folder.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PRESET = "byol_resnet_nano_cifar10"
# Its kNN score may differ by so much: backends round differently, and images
# near a boundary change sides.
TOLERANCE = 0.002
# What makes the README's example quick, by what it stands for.
QUICK = {
    '"cifar10"': '"fashion_mnist_small"',
    "(32, 32, 3)": "(28, 28, 1)",
    "steps=20 * 391": "steps=20",
    "epochs=20": "epochs=1",
}


def run_readme(readme: Path) -> None:
    """Runs the first Python example, on the embedded images."""
    found = re.search(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)
    if found is None:
        sys.exit(f"{readme} has no example in Python")
    code = found[1]
    for long, short in QUICK.items():
        if long not in code:
            sys.exit(f"the example in {readme} has no {long} any more")
        code = code.replace(long, short)
    exec(code, {"__name__": "__main__"})


def command(*arguments: str) -> str:
    """Runs `kerassl` and returns what it printed."""
    done = subprocess.run(
        ["kerassl", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def check_presets() -> None:
    """Verifies all presets, and scores one again."""
    listed: list[dict[str, Any]] = json.loads(
        command("presets", "list", "--json")
    )
    recorded = {info["name"]: info["scores"] for info in listed}
    for name in recorded:
        command("presets", "verify", name)
    printed = command(
        *f"evaluate {PRESET} --data cifar10 --protocol knn --json".split()
    )
    found = json.loads(printed.splitlines()[-1])["knn"]["accuracy"]
    expected = recorded[PRESET]["knn"]["accuracy"]
    print(f"{PRESET}: kNN {found:.4f}, {expected:.4f} on its card")
    if abs(found - expected) > TOLERANCE:
        sys.exit(f"the scores of {PRESET} differ by more than {TOLERANCE}")


def main() -> None:
    """Runs what the command line asks for."""
    run_readme(Path(sys.argv[1]).resolve())
    check_presets()


if __name__ == "__main__":
    main()
