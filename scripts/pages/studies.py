"""docs/studies.md and its pictures: the papers' studies, repeated.

They come from the runs of `python scripts/train.py studies`.
"""

import string
from pathlib import Path
from typing import Any

from results import ROOT, read_lines
from trainings.studies import EPOCHS, IMAGES, OPERATIONS, RUNS, STUDIES, Study

TEMPLATE = ROOT / "scripts" / "pages" / "studies.md"
PAGE = ROOT / "docs" / "studies.md"
PICTURES = ROOT / "docs" / "pictures" / "studies"
# Smaller differences of two single runs mean nothing.
MEANINGFUL = 0.02
MEASURES = {"knn": "kNN", "linear": "the linear classifier"}


def measured() -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the runs of the complete studies, by study and variant."""
    found = {
        (line["study"], line["variant"]): line for line in read_lines(RUNS)
    }
    return {
        name: {label: found[name, label] for label in study.variants}
        for name, study in STUDIES.items()
        if all((name, label) in found for label in study.variants)
    }


def pages() -> dict[Path, str]:
    """Returns the path of the page and its Markdown."""
    sections = [section(name, runs) for name, runs in measured().items()]
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(
        images=f"{IMAGES:,}", epochs=EPOCHS, sections="\n\n".join(sections)
    )
    return {PAGE: text}


def section(name: str, runs: dict[str, dict[str, Any]]) -> str:
    """Returns a study's question, answer, picture and table."""
    study = STUDIES[name]
    first = next(iter(runs.values()))
    rows = [
        f"| {label} | {100 * run['knn']:.1f} | {100 * run['linear']:.1f} | "
        f"{run['effective_rank']:.0f} | {run['spread']:.2f} |"
        for label, run in {
            **runs,
            "untrained": first["untrained"],
        }.items()
    ]
    reason = f" {study.reason}" if study.reason else ""
    return "\n".join(
        [
            f"## {study.title}\n",
            f"*The paper* ([PDF]({study.url.replace('/abs/', '/pdf/')})): "
            f"{study.found}\n",
            f"*Here* the direction {verdict(study, runs)}.{reason}\n",
            f"![{study.title}](pictures/studies/{name}.svg)\n",
            "| | kNN | linear | effective rank | spread |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def verdict(study: Study, runs: dict[str, dict[str, Any]]) -> str:
    """Returns whether runs agree with the paper, in words."""
    untrained = next(iter(runs.values()))["untrained"]
    agrees = {}
    for measure in MEASURES:
        scores = {label: run[measure] for label, run in runs.items()}
        if max(scores.values()) - min(scores.values()) < MEANINGFUL:
            return "can't be told: all are within two points"
        agrees[measure] = study.agrees(
            {**scores, "untrained": untrained[measure]}
        )
    if len({*agrees.values()}) > 1:
        (name,) = (MEASURES[key] for key, agreed in agrees.items() if agreed)
        return f"can't be told: only {name} agrees"
    return "is the same" if agrees["knn"] else "isn't the same"


def draw() -> None:
    """Draws each complete study."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, runs in measured().items():
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        if STUDIES[name].variants[next(iter(runs))].operations:
            draw_matrix(figure, runs)
        else:
            draw_bars(figure, runs)
            # What the variants differ in, such as "the temperature".
            varied = STUDIES[name].title.partition(": ")[2]
            figure.axes[0].set_xlabel(varied)
        # The same file again for the same numbers.
        with rc_context({"svg.hashsalt": "kerassl"}):
            figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})


def draw_bars(figure: Any, runs: dict[str, dict[str, Any]]) -> None:
    """Draws a bar for each variant, and the untrained encoder as a line."""
    axes = figure.subplots()
    heights = [100 * run["knn"] for run in runs.values()]
    axes.bar_label(
        axes.bar(list(runs), heights, width=0.6),
        fmt="%.1f",
        padding=2,
        # The line of the untrained encoder may run behind a number.
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
    start = 100 * next(iter(runs.values()))["untrained"]["knn"]
    axes.axhline(start, color="tab:gray", linestyle="--")
    axes.annotate(
        "untrained",
        (1, start),
        (3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        verticalalignment="center",
        color="tab:gray",
    )
    axes.set(ylabel="kNN accuracy, %")
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def draw_matrix(figure: Any, runs: dict[str, dict[str, Any]]) -> None:
    """Draws the accuracy of each pair of operations, one on the diagonal."""
    import numpy as np

    values = np.full((len(OPERATIONS), len(OPERATIONS)), np.nan)
    for label, run in runs.items():
        places = [OPERATIONS.index(part) for part in label.split(" + ")]
        values[places[-1], places[0]] = values[places[0], places[-1]] = (
            100 * run["knn"]
        )
    axes = figure.subplots()
    image = axes.imshow(values, cmap="viridis")
    middle = (values.min() + values.max()) / 2
    for i, j in np.ndindex(values.shape):
        color = "black" if values[i, j] > middle else "white"
        text = f"{values[i, j]:.1f}"
        axes.text(j, i, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(OPERATIONS)), OPERATIONS)
    axes.set_yticks(range(len(OPERATIONS)), OPERATIONS)
    figure.colorbar(image, label="kNN accuracy, %")
