"""Trains every method on the same images and writes the table of the docs.

    KERAS_BACKEND=torch python scripts/compare_methods.py

Each method gets its `cpu` recipe on the first 10,000 training images of
CIFAR-10, as `kerassl pretrain METHOD --data cifar10 --limit 10000` does, in a
process of its own. Then kNN (k = 20, temperature 0.07) from these images to the
first 2,000 test images, with the trained encoder and with the same encoder
untrained, at its output and at each stage; what `evaluate` gives on the test
images; and two signs of collapse (`kerassl.evaluation.effective_rank` and
`feature_spread`) on the test images.

Each run is one JSON line in `--output`; runs that are there already, with the
same recipe, aren't repeated. `--write-docs` puts what the file holds into
docs/methods.md and the methods' pages, and trains nothing.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Keras is imported where it's used: the process that starts the others needs
# none of its memory.

RESULTS = ROOT / "docs" / "results" / "cifar10_cpu.jsonl"
PAGES = {
    "moco_v1": "moco",
    "moco_v2": "moco",
    "moco_v3": "moco",
    "simclr": "simclr",
    "simclr_v2": "simclr",
    "byol": "byol",
    "simsiam": "simsiam",
    "swav": "swav",
    "barlow_twins": "barlow_twins",
    "vicreg": "vicreg",
    "context_encoder": "context_encoder",
    "mae": "mae",
    "context_prediction": "context_prediction",
    "jigsaw": "jigsaw",
    "rotation": "rotation",
}


def run(
    method: str,
    seed: int,
    images: int,
    epochs: int | None,
    pictures: Path | None,
) -> dict:
    """Trains one method and returns its scores."""
    from kerassl import evaluation, recipes, runs, visualization

    recipe = recipes.get(method).replace(seed=seed, epochs=epochs)
    with tempfile.TemporaryDirectory() as folder:
        training = runs.start(folder, recipe, "cifar10", limit=images)
        start = time.perf_counter()
        training.train()
        seconds = time.perf_counter() - start
        subject = runs.Evaluation(
            folder, "cifar10", train_limit=images, test_limit=2000
        )
        scores = runs.protocol("knn").measure(subject)
        features = subject.features(subject.encoder)[1]
        held_out = training.model.evaluate(
            subject.splits["test"].batches(200), verbose=0, return_dict=True
        )
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            shown, _ = subject.splits["test"].batches(8)[0]
            figure = visualization.pretext(training.model, shown)
            figure.savefig(pictures / f"{method}.png", dpi=80)
        history = (Path(folder) / "history.csv").read_text().splitlines()
    losses = [row.split(",") for row in history]
    column = losses[0].index("loss")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {
        "method": method,
        "seed": seed,
        "recipe": recipe.hash,
        "epochs": recipe.epochs,
        "images": images,
        "knn": round(scores["accuracy"], 4),
        "untrained": round(scores["untrained_accuracy"], 4),
        "stages": scores["stages"],
        "untrained_stages": scores["untrained_stages"],
        "held_out": {k: round(v, 4) for k, v in held_out.items()},
        "encoder": recipe.encoder,
        "width": features.shape[1],
        "effective_rank": round(evaluation.effective_rank(features), 1),
        "feature_spread": round(evaluation.feature_spread(features), 3),
        "first_loss": round(float(losses[1][column]), 4),
        "last_loss": round(float(losses[-1][column]), 4),
        "seconds": round(seconds, 1),
        "peak_memory_mb": round(peak),
        **runs.environment(),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the runs of a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def note(found: list[dict[str, Any]]) -> str:
    """Returns what to say of runs whose recipe has changed since."""
    from kerassl import recipes

    now = recipes.get(found[0]["method"]).hash
    return "" if found[0]["recipe"] == now else " (earlier recipe)"


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


def write_docs(found: list[dict[str, Any]]) -> None:
    """Puts the results between the markers of the pages."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for method in PAGES:
        mine = [r for r in found if r["method"] == method]
        # Of several recipes the last one counts.
        mine = [r for r in mine if r["recipe"] == mine[-1]["recipe"]]
        if mine:
            runs[method] = mine
    _replace(ROOT / "docs" / "methods.md", "all", table(runs))
    for method, page in PAGES.items():
        if method in runs:
            _replace(
                ROOT / "docs" / "methods" / f"{page}.md",
                method,
                describe(runs[method]),
            )


def _replace(page: Path, name: str, text: str) -> None:
    old = page.read_text()
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(old):
        raise SystemExit(f"{page} has no {start} ... {end}")
    page.write_text(pattern.sub(lambda _: f"{start}\n\n{text}\n\n{end}", old))


def main() -> int:
    """Runs what the command line asks for and isn't done yet."""
    parser = argparse.ArgumentParser(
        description="Train every method on 10,000 images of CIFAR-10."
    )
    add = parser.add_argument
    add("--methods", nargs="+", choices=PAGES, default=list(PAGES))
    add("--seeds", nargs="+", type=int, default=[0])
    add("--images", type=int, default=10_000)
    add("--epochs", type=int, help="default: the recipe's")
    add("--output", type=Path, default=RESULTS)
    add("--pictures", type=Path, help="a folder for a picture of each method")
    add("--write-docs", action="store_true")
    add("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write_docs:
        write_docs(read(options.output))
        return 0
    if options.here:
        (method,), (seed,) = options.methods, options.seeds
        settings = (options.images, options.epochs, options.pictures)
        print(json.dumps(run(method, seed, *settings)))
        return 0

    from kerassl import recipes

    failed = 0
    for seed in options.seeds:
        for method in options.methods:
            recipe = recipes.get(method).replace(
                seed=seed, epochs=options.epochs
            )
            if any(
                r["recipe"] == recipe.hash and r["images"] == options.images
                for r in read(options.output)
            ):
                continue
            command = [sys.executable, __file__, "--here"]
            command += ["--methods", method, "--seeds", str(seed)]
            command += ["--images", str(options.images)]
            if options.epochs:
                command += ["--epochs", str(options.epochs)]
            if options.pictures:
                command += ["--pictures", str(options.pictures)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                failed += 1
                continue
            line = done.stdout.splitlines()[-1]
            print(line, flush=True)
            options.output.parent.mkdir(parents=True, exist_ok=True)
            with options.output.open("a") as file:
                file.write(line + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
