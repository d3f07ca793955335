"""Tables in docs/methods.md and results in the methods' pages.

They are written between markers. The tables of methods come from
`kerassl/registry.py`, the results from `python scripts/train.py methods`.
"""

import re
import statistics
from pathlib import Path
from typing import Any

from results import RESULTS, ROOT, read_lines, recipe_hashes

from kerassl.registry import FAMILIES, entries

RUNS = RESULTS / "cifar10_cpu.jsonl"
ALL_IMAGES = RESULTS / "cifar10_all.jsonl"
PAGES = {name: entry.page for name, entry in entries().items()}


def runs_of(path: Path, images: int) -> dict[str, list[dict[str, Any]]]:
    """Returns each method's runs on that many images, the last of each seed.

    They are those of today's recipe, or of the last one if it has none.
    """
    from kerassl import recipes

    found = [r for r in read_lines(path) if r["images"] == images]
    runs: dict[str, list[dict[str, Any]]] = {}
    for method in PAGES:
        mine = [r for r in found if r["method"] == method]
        hashes = recipe_hashes(recipes.get(method).to_dict())
        if not any(r["recipe"] in hashes for r in mine):
            hashes = {r["recipe"] for r in mine[-1:]}
        # A run may have been repeated, for more scores.
        last = {r["seed"]: r for r in mine if r["recipe"] in hashes}
        if last:
            runs[method] = list(last.values())
    return runs


def pages() -> dict[Path, str]:
    """Returns the paths of the pages and their Markdown."""
    runs, whole = runs_of(RUNS, 10_000), runs_of(ALL_IMAGES, 50_000)
    overview = ROOT / "docs" / "methods.md"
    text = overview.read_text(encoding="utf-8")
    for family in FAMILIES:
        text = replaced(text, family, family_table(family))
    texts = {overview: replaced(text, "all", table(runs))}
    for method in runs | whole:
        path = ROOT / "docs" / "methods" / f"{PAGES[method]}.md"
        text = texts.get(path) or path.read_text(encoding="utf-8")
        results = [describe(r[method]) for r in (runs, whole) if method in r]
        texts[path] = replaced(text, method, "\n\n".join(results))
    return texts


def replaced(page: str, name: str, text: str) -> str:
    """Returns a page with another text between the markers of a name.

    Raises:
        ValueError: if the page lacks the markers.
    """
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"A page lacks {start} ... {end}.")
    return pattern.sub(lambda _: f"{start}\n\n{text}\n\n{end}", page)


def family_table(family: str) -> str:
    """Returns the table of a family's methods, in Markdown."""
    rows = ["| Method | Recipes | Loss | Needs |", "|---|---|---|---|"]
    rows += [
        f"| [{e.title}](methods/{e.page}.md) ([{e.paper}]({e.url})) | "
        f"`{e.name}` | {e.loss} | {e.needs} |"
        for e in entries().values()
        if e.family == family
    ]
    return "\n".join(rows)


def note(found: list[dict[str, Any]]) -> str:
    """Returns what to say of runs whose recipe has changed since."""
    from kerassl import recipes

    now = recipe_hashes(recipes.get(found[0]["method"]).to_dict())
    return "" if found[0]["recipe"] in now else " (earlier recipe)"


def describe(found: list[dict[str, Any]]) -> str:
    """Returns one method's result as a sentence."""
    first = found[0]
    knn = statistics.mean(r["knn"] for r in found)
    untrained = statistics.mean(r["untrained"] for r in found)
    minutes = statistics.mean(r["seconds"] for r in found) / 60
    encoder = first.get("encoder", "resnet_nano")
    runs = "one run" if len(found) == 1 else f"mean of {len(found)} runs"
    text = (
        f"kNN {untrained:.1%} untrained, **{knn:.1%}** after "
        f"{first['epochs']} epochs on {first['images']:,} images of CIFAR-10 "
        f"(`{encoder}`, `{first['backend']}`, {minutes:.1f} minutes; "
        f"{runs}){note(found)}."
    )
    if "linear" in first:
        linear = statistics.mean(r["linear"] for r in found)
        text += f" A linear classifier has {linear:.1%}."
    if "stages" not in first:
        return text
    best, score = best_stage(found, "stages")
    before, floor = best_stage(found, "untrained_stages")
    held_out = ", ".join(
        f"`{name}` {statistics.mean(r['held_out'][name] for r in found):.3f}"
        for name in first["held_out"]
    )
    return (
        f"{text} At the best stage, `{best}`, **{score:.1%}**; untrained, the "
        f"best is `{before}` with {floor:.1%}. On views of the test images: "
        f"{held_out}."
    )


def best_stage(found: list[dict[str, Any]], key: str) -> tuple[str, float]:
    """Returns the stage with the best mean accuracy, and that."""
    means = {
        name: statistics.mean(r[key][name] for r in found)
        for name in found[0][key]
    }
    best = max(means, key=lambda name: means[name])
    return best, means[best]


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the table of all methods, in Markdown."""
    lines = [
        "| method | untrained | trained | best stage | effective rank | spread "
        "| minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, found in runs.items():
        mean = {
            key: statistics.mean(r[key] for r in found)
            for key in (
                "untrained",
                "knn",
                "effective_rank",
                "feature_spread",
                "seconds",
            )
        }
        best = "not measured"
        if "stages" in found[0]:
            name, score = best_stage(found, "stages")
            best = f"{score:.1%} (`{name}`)"
        lines.append(
            f"| `{method}`{note(found)} | {mean['untrained']:.1%} | "
            f"{mean['knn']:.1%} | "
            f"{best} | {mean['effective_rank']:.1f} of "
            f"{found[0].get('width', 128)} | "
            f"{mean['feature_spread']:.2f} | {mean['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)
