"""docs/benchmark.md: the scores that the presets were published with."""

import csv
import json
import statistics
import string
from pathlib import Path
from typing import Any

import numpy as np
from results import (
    PRESETS,
    RESULTS,
    ROOT,
    in_pixels,
    read_json,
    read_lines,
    recipe_hashes,
    weights_hash,
)

TEMPLATE = ROOT / "scripts" / "pages" / "benchmark.md"
PAGE = ROOT / "docs" / "benchmark.md"
PICTURE = ROOT / "docs" / "pictures" / "benchmark.svg"
TRAINING_IMAGES = 50_000
TRAINED = 45_000  # images, where a try says nothing else
TRIES = RESULTS / "tuning.jsonl"
SHORT_RUNS = RESULTS / "cifar10_cpu.jsonl"
ALL_IMAGES = RESULTS / "cifar10_all.jsonl"
TRANSFER = RESULTS / "transfer.jsonl"

# Methods that learn from labels or a trained teacher.
HELPED = ("supcon", "distillation")
PRETEXT = {
    "context_encoder",
    "context_prediction",
    "dinov2",
    "ibot",
    "ijepa",
    "jigsaw",
    "mae",
    "rotation",
    "simmim",
}
# Scores of classifiers that learn from labels, as columns.
LEARNED = ["linear", "linear_stages", "linear_10%", "linear_1%", "finetune_1%"]
SHOWN = ("cpu", "fast")  # recipes
# Most recipes' epochs: rows of presets with others say so.
EPOCHS = 10
# Targets: of each joint-embedding method, and of the best one.
EACH = 0.54
BEST = {"knn": 0.62, "linear": 0.66}
WHY = {
    "linear": " A linear classifier has only {features} features here; the "
    "column *all stages* has those of all stages."
}


def percent(value: float | None) -> str:
    """Returns a share in percent."""
    return "" if value is None else f"{100 * value:.1f}"


def with_deviation(score: dict[str, Any], start: str = "") -> str:
    """Returns a mean and its deviation over draws of labels."""
    mean = percent(score.get(f"{start}accuracy"))
    deviation = score.get(f"{start}std")
    return mean if deviation is None else f"{mean} ± {100 * deviation:.1f}"


def title(info: dict[str, Any]) -> str:
    """Returns a preset's method, and what sets it apart from other rows."""
    epochs, recipe = info["training"]["epochs"], info["recipe"]["name"]
    if (first := start(info)) is not None:
        return f"{title(first)}, then {epochs} of `{recipe}`"
    return (
        f"`{info['method']}`"
        + (f", recipe `{recipe}`" if recipe != "cpu" else "")
        + (f", {epochs} epochs" if epochs != EPOCHS else "")
    )


def start(info: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the preset of the zoo that a preset went on from, if it did."""
    name = info["training"].get("went on from", "").partition(",")[0]
    index = read_json(PRESETS / "index.json")
    return index["presets"][name]["info"] if name else None


def minutes(info: dict[str, Any]) -> float:
    """Returns the minutes of training, with those of the start."""
    first = start(info)
    before = 0.0 if first is None else minutes(first)
    return before + info["training"]["seconds"] / 60


def row(name: str, scores: dict[str, Any], start: str = "") -> str:
    """Returns a row of the first table."""
    knn = scores["knn"]
    stages = knn.get(f"{start}stages") or {}
    best = max(stages, key=stages.__getitem__, default=None)
    rank = knn.get(f"{start}effective_rank")
    cells = [
        name,
        percent(knn.get(f"{start}accuracy")),
        "" if best is None else f"{percent(stages[best])}, {best}",
        *(with_deviation(scores.get(score, {}), start) for score in LEARNED),
        "" if rank is None else f"{rank:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def speed(info: dict[str, Any]) -> float:
    """Returns the images per second of a run's median epoch, or of all."""
    path = PRESETS / "history" / f"{info['name']}.csv"
    if not path.exists():
        training = info["training"]
        return TRAINING_IMAGES * training["epochs"] / training["seconds"]
    with path.open(newline="", encoding="utf-8") as file:
        return statistics.median(
            float(row["images_per_second"]) for row in csv.DictReader(file)
        )


def memory(recipe: dict[str, Any]) -> float | None:
    """Returns the peak memory in MB of a short run of the recipe."""
    hashes = recipe_hashes(recipe)
    for found in read_lines(SHORT_RUNS):
        if found["recipe"] in hashes:
            return found["peak_memory_mb"]
    return None


def weaknesses(presets: list[dict[str, Any]]) -> list[str]:
    """Returns the scores that miss their targets."""
    lines = []
    for info in presets:
        method, knn = info["method"], info["scores"]["knn"]
        stages, floors = knn["stages"], knn["untrained_stages"]
        best = max([knn["accuracy"], *stages.values()])
        floor = max([knn["untrained_accuracy"], *floors.values()])
        if best <= floor:
            linear = info["scores"]["linear"]
            lines.append(
                f"- {title(info)}: no stage's kNN accuracy exceeds the best of "
                f"random weights, {percent(floor)} %. The linear score is "
                f"{percent(linear['accuracy'])} %; of random weights, "
                f"{percent(linear['untrained_accuracy'])} %."
            )
        elif method not in PRETEXT and knn["accuracy"] < EACH:
            lines.append(
                f"- {title(info)}: kNN of {percent(knn['accuracy'])} % is "
                f"below the target of {percent(EACH)} %."
            )
    for protocol, aim in BEST.items():
        leader = max(presets, key=lambda i: i["scores"][protocol]["accuracy"])
        highest = leader["scores"][protocol]["accuracy"]
        if highest < aim:
            why = WHY.get(protocol, "").format(features=leader["features"])
            lines.append(
                f"- The best {protocol} score is {percent(highest)} %, below "
                f"the target of {percent(aim)} %.{why}"
            )
    return lines or ["All scores reach their targets."]


def trained() -> list[dict[str, Any]]:
    """Returns the presets of recipes for CPUs, the best kNN score first.

    Those of larger encoders, trained on GPUs, are not comparable with them.
    """
    index = read_json(PRESETS / "index.json")
    presets = [entry["info"] for entry in index["presets"].values()]
    presets = [info for info in presets if info["recipe"]["name"] in SHOWN]
    return sorted(presets, key=lambda i: -i["scores"]["knn"]["accuracy"])


def without_preset(presets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns runs on all images of methods that have no preset, likewise."""
    from kerassl import recipes

    found = {}
    for run in read_lines(ALL_IMAGES):
        recipe = recipes.get(run["method"]).to_dict()
        # As the presets: one run, of the first seed.
        if run["seed"] or run["recipe"] not in recipe_hashes(recipe):
            continue
        scores = {
            "knn": {
                "accuracy": run["knn"],
                "untrained_accuracy": run["untrained"],
                "stages": run["stages"],
                "untrained_stages": run["untrained_stages"],
                "effective_rank": run["effective_rank"],
            },
            "linear": {
                "accuracy": run["linear"],
                "untrained_accuracy": run["untrained_linear"],
            },
            **run.get("scores", {}),
        }
        found[run["method"]] = {
            "name": run["method"],
            "method": run["method"],
            "recipe": recipe,
            "architecture": run["encoder"],
            "training": {"epochs": run["epochs"], "seconds": run["seconds"]},
            "scores": scores,
        }
    for info in presets:
        found.pop(info["method"], None)
    return list(found.values())


def pages() -> dict[Path, str]:
    """Returns the page's path and its Markdown."""
    presets = trained()
    every = sorted(
        [*presets, *without_preset(presets)],
        key=lambda info: -info["scores"]["knn"]["accuracy"],
    )
    scores = [row(title(info), info["scores"]) for info in every]
    seen: dict[str, dict[str, Any]] = {}
    for info in presets:
        found = seen.setdefault(info["architecture"], {})
        seen[info["architecture"]] = {**info["scores"], **found}
    scores += [
        row(f"random, `{architecture}`", found, "untrained_")
        for architecture, found in seen.items()
    ]
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    text = template.substitute(
        count=len({info["method"] for info in every}),
        epochs=EPOCHS,
        best=presets[0]["name"],
        scores="\n".join(scores),
        supervised=supervised(),
        costs="\n".join(map(cost, every)),
        weaknesses="\n".join(weaknesses(every)),
        transfer=transfer(presets),
        repeats=repeats(presets),
        tries=tries(presets),
    )
    return {PAGE: text}


def transfer(presets: list[dict[str, Any]]) -> str:
    """Returns a table of the scores on images that no preset was trained on.

    Its last row is the rank correlation of each column with kNN on CIFAR-10.
    """
    from scipy.stats import spearmanr

    lines = read_lines(TRANSFER)
    if not lines:
        return "Not measured yet."
    columns = [key for key in lines[0] if key not in ("name", "weights")]
    rows, usual, found = [], [], []
    for info in presets:
        for line in lines:
            if line["weights"] == weights_hash(info):
                usual.append(info["scores"]["knn"]["accuracy"])
                found.append([line[column] for column in columns])
                cells = list(map(percent, [usual[-1], *found[-1]]))
                rows.append(f"| {title(info)} | {' | '.join(cells)} |")
    for line in lines:
        if line["weights"] is None:
            kind, architecture = line["name"].split(", ")
            cells = [f"{kind}, `{architecture}`", ""]
            cells += [percent(line[column]) for column in columns]
            rows.append(f"| {' | '.join(cells)} |")
    if len(usual) > 2:
        ranks = [spearmanr(usual, column).statistic for column in zip(*found)]
        cells = ["rank correlation", "", *(f"{rank:.2f}" for rank in ranks)]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def tries(presets: list[dict[str, Any]]) -> str:
    """Returns a table of the tried changes, method by method."""
    from kerassl import recipes
    from kerassl.renamed import current_recipe

    rows = []
    now = {name: recipes.get(name).to_dict() for name in recipes.methods()}
    # A preset's recipe is under the names of its tries.
    now |= {info["method"]: info["recipe"] for info in presets}
    for found in read_lines(TRIES):
        changes = ", ".join(
            f"`{change}`"
            for change in differences(
                *(
                    in_pixels(current_recipe(fields))
                    for fields in (found["recipe"], now[found["method"]])
                )
            )
        )
        cells = [
            f"`{found['method']}`",
            changes or "nothing",
            f"{found.get('images', TRAINED):,}",
            str(found["epochs"]),
            *(percent(found[key]) for key in BEST),
            f"{found['effective_rank']:.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    # A stable sort: tries of a method stay in their order.
    return "\n".join(sorted(rows, key=lambda row: row.split("|")[1]))


def differences(tried: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns the differences of a recipe from another, but epochs."""
    lines = []
    for field, value in tried.items():
        # A recipe leaves out some fields that have their default.
        other = now.get(field, {})
        if field == "epochs" or value == other:
            continue
        if not isinstance(value, dict):
            lines.append(f"{field}={json.dumps(value)}")
            continue
        for key in sorted({*value, *other}):
            if value.get(key) != other.get(key):
                lines.append(
                    f"{field}.{key}={json.dumps(value[key])}"
                    if key in value
                    else f"no {field}.{key}"
                )
    return lines


def supervised() -> str:
    """Returns the scores of supervised training with all labels."""
    return "".join(
        f"\nWith all labels, `{architecture}` trained from scratch for "
        f"{score['epochs']} epochs reaches {percent(score['accuracy'])} %.\n"
        for architecture, score in read_json(
            PRESETS / "supervised.json"
        ).items()
    )


def cost(info: dict[str, Any]) -> str:
    """Returns a row of the second table."""
    used = memory(info["recipe"])
    cells = [
        f"`{info['name']}`",
        f"{speed(info):.0f}",
        f"{minutes(info):.0f}",
        "" if used is None else f"{used:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def repeats(presets: list[dict[str, Any]]) -> str:
    """Returns a table of the scores of repeated runs."""
    found = read_json(PRESETS / "repeats.json")
    if not found:
        return "Not measured yet: each method was trained once."
    text = "| Preset | runs | kNN | linear |\n|---|---|---|---|\n"
    for info in presets:
        runs = [
            {key: info["scores"][key]["accuracy"] for key in BEST},
            *(
                run
                for run in found.get(info["name"], {}).values()
                if run["preset_recipe"] in recipe_hashes(info["recipe"])
            ),
        ]
        if len(runs) == 1:
            continue
        cells = [
            f"{percent(statistics.mean(run[key] for run in runs))} ± "
            f"{percent(statistics.stdev(run[key] for run in runs))}"
            for key in BEST
        ]
        text += f"| `{info['name']}` | {len(runs)} | {' | '.join(cells)} |\n"
    return text + "\nMean and standard deviation over seeds of the training."


def usual_minutes(info: dict[str, Any]) -> float:
    """Returns the minutes at the speed of the median epoch."""
    first = start(info)
    before = 0.0 if first is None else usual_minutes(first)
    seconds = TRAINING_IMAGES * info["training"]["epochs"] / speed(info)
    return before + seconds / 60


def color_of(method: str) -> str:
    """Returns the color of a method's point."""
    if method in HELPED:
        return "tab:green"
    return "tab:orange" if method in PRETEXT else "tab:blue"


def draw() -> None:
    """Draws score against training time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    presets = trained()
    presets += without_preset(presets)
    presets.sort(key=lambda info: -info["scores"]["knn"]["accuracy"])

    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    # Names in a column on the right, the best first.
    levels = np.linspace(0.98, 0.02, len(presets))
    for level, info in zip(levels, presets):
        x, y = usual_minutes(info), 100 * info["scores"]["knn"]["accuracy"]
        axes.scatter(x, y, color=color_of(info["method"]))
        axes.annotate(
            title(info).replace("`", ""),
            (x, y),
            (1.05, level),
            textcoords="axes fraction",
            arrowprops={
                "arrowstyle": "-",
                "color": "lightgray",
                "relpos": (0.0, 0.5),
            },
            verticalalignment="center",
            fontsize="small",
        )
    floor = 100 * trained()[0]["scores"]["knn"]["untrained_accuracy"]
    axes.axhline(floor, color="tab:gray", linestyle="--")
    axes.text(
        *(0.02, floor, "random ResNet"),
        transform=axes.get_yaxis_transform(),
        verticalalignment="bottom",
        fontsize="small",
    )
    axes.set(xlabel="minutes of training, one core", ylabel="kNN, %")
    # Equal numbers give equal files.
    with rc_context({"svg.hashsalt": "kerassl"}):
        figure.savefig(PICTURE, metadata={"Date": None})
