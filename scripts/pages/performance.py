"""docs/performance.md: measured speeds, counted operations.

    python scripts/benchmark.py METHOD ... >> docs/results/performance.jsonl
    python scripts/cost_model.py
    python scripts/cost_model.py --scale imagenet
    python scripts/write_pages.py

The last line of each method, backend and GPU counts.
"""

import string
from pathlib import Path
from typing import Any

from results import RESULTS, ROOT, read_lines

TEMPLATE = ROOT / "scripts" / "pages" / "performance.md"
PAGE = ROOT / "docs" / "performance.md"
BACKENDS = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow"}

# An H100's dense bfloat16 peak by NVIDIA's data sheet; the share of it that a
# step is assumed to reach; bytes per second of a 400 Gbit link between hosts.
PEAK, SHARE, LINK = 989e12, 0.25, 50e9
PER_DEVICE = 64
DEVICES = (8, 64, 512, 4096)


COLUMNS = """
| Method | Mega-operations | passes | parameters | state, MB | batch, MB |
|---|---|---|---|---|---|
"""


def lines(name: str, *keys: str) -> dict[tuple, dict[str, Any]]:
    """Returns a file's results by the values of keys, the last of each.

    A line without a key counts as "" there.
    """
    found = {
        tuple(line.get(key, "") for key in keys): line
        for line in read_lines(RESULTS / name)
    }
    return dict(sorted(found.items()))


def measured(found: dict[tuple, dict[str, Any]]) -> str:
    """Returns the rows of the first table."""
    return "\n".join(
        f"| `{line['method']}` | {BACKENDS[line['backend']]} | "
        f"{line['samples_per_second']:.0f} | {line['step_ratio']:.2f} | "
        f"{line['method_ratio']:.2f} | {line['views_per_second']:,.0f} | "
        f"{line['peak_memory_mb']:,.0f} | {line['date']} |"
        for line in found.values()
        if "gpu" not in line
    )


def measured_on_gpus(
    found: dict[tuple, dict[str, Any]], costs: dict[tuple, dict[str, Any]]
) -> str:
    """Returns the rows of steps on a GPU, with the predictions."""
    rows = []
    for line in found.values():
        if "gpu" not in line:
            continue
        flops = costs[line["recipe"], line["method"]]["flops_per_image"]
        speed = line["samples_per_second"]
        rows.append(
            f"| `{line['method']}` | {BACKENDS[line['backend']]} | "
            f"{line['precision']} | {line['batch_size']} | {speed:,.0f} | "
            f"{PEAK * SHARE / flops:,.0f} | {speed * flops / PEAK:.0%} | "
            f"{line['step_ratio']:.2f} | {line['method_ratio']:.2f} | "
            f"{line['views_per_second']:,.0f} | "
            f"{line['gpu_memory_mb']:,.0f} | {line['date']} |"
        )
    return "\n".join(rows)


def trained_on_gpus() -> str:
    """Returns the rows of trainings on a GPU."""
    return "\n".join(
        f"| `{line['method']}` | `{line['recipe']}` | `{line['encoder']}` | "
        f"{BACKENDS[line['backend']]} | {line['images']:,} | {line['epochs']} "
        f"| {line['images_per_second']:,.0f} | {100 * line['untrained']:.1f} "
        f"| {100 * line['knn']:.1f} |"
        for line in lines("gpu.jsonl", "method", "recipe", "backend").values()
    )


def counted(costs: dict[tuple, dict[str, Any]]) -> str:
    """Returns a table for each scale."""
    text = ""
    for scale in dict.fromkeys(scale for scale, _ in costs):
        found = [line for (s, _), line in costs.items() if s == scale]
        text += f"\nRecipes `{scale}`, images of {found[0]['image_size']} px:\n"
        text += COLUMNS + "".join(
            f"| `{line['method']}` | {line['flops_per_image'] / 1e6:,.0f} "
            f"| {line['passes']:.1f} | {line['parameters']:,} | "
            f"{line['state_bytes'] / 1e6:.1f} | "
            f"{line['largest_bytes'] / 1e6:.1f} |\n"
            for line in found
        )
    return text


def predicted(line: dict[str, Any]) -> str:
    """Returns a row of the last table."""
    speed = PEAK * SHARE / line["flops_per_image"]
    gradients = 4 * line["parameters"]
    cells = [f"`{line['method']}`", f"{speed:,.0f}"]
    cells.append(f"{1000 * PER_DEVICE / speed:.1f}")
    for count in DEVICES:
        ring = (count - 1) / count
        # The loss's traffic grows with the global batch.
        grown = PER_DEVICE * count / line["batch_size"]
        reduced = gradients + (line["reduced_bytes"] - gradients) * grown
        moved = ring * (2 * reduced + line["gathered_bytes"] * grown)
        cells.append(f"{1000 * moved / LINK:.1f}")
    return f"| {' | '.join(cells)} |"


def pages() -> dict[Path, str]:
    """Returns the page's path and its Markdown."""
    found = lines("performance.jsonl", "method", "backend", "gpu")
    costs = lines("cost.jsonl", "scale", "method")
    first = next(line for line in found.values() if "gpu" not in line)
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(
        encoder=first["encoder"],
        batch=first["batch_size"],
        size=first["image_size"],
        steps=first["steps"],
        rounds=first["rounds"],
        threads="one core" if first["threads"] == 1 else "several cores",
        cpu=first["cpu"],
        measured=measured(found),
        measured_on_gpus=measured_on_gpus(found, costs),
        trained_on_gpus=trained_on_gpus(),
        counted=counted(costs),
        per_device=PER_DEVICE,
        rate=f"{PEAK * SHARE / 1e12:.0f}",
        header=" | ".join(f"{n:,} devices" for n in DEVICES),
        rules="|".join(["---"] * len(DEVICES)),
        predicted="\n".join(
            predicted(line)
            for (scale, _), line in costs.items()
            if scale == "imagenet"
        ),
    )
    return {PAGE: text}
