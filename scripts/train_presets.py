"""Trains, evaluates and packs the presets that come with kerassl.

    KERAS_BACKEND=torch python scripts/train_presets.py --only simclr

For each method: `kerassl pretrain` with its recipe on the 50,000 training
images of CIFAR-10, whose labels it doesn't see; `kerassl evaluate` on all
10,000 test images; and `kerassl.save_preset` into `presets/NAME`, with the
run's history in `presets/history/NAME.csv` and an entry in
`presets/index.json`. Every step that is done is skipped, and a training that
was stopped or killed goes on, so the same command finishes what an interrupted
one began.

With `--seed 1` and so on the same method is trained once more, and its kNN and
linear scores go to `presets/repeats.json`: how far runs lie apart.
`--supervised` trains the encoders of these recipes with all labels instead, for
as many epochs, and writes `presets/supervised.json`.

`--epochs 20` trains for other than the recipe's epochs, and the preset has them
in its name: `NAME_20_epochs`, beside the other. `--scale cifar` takes the
recipes for a GPU (`resnet_18_small`; for 200 epochs with `--epochs 200`),
`--scale imagenet` those for ImageNet. `--verify` trains anew
in a temporary folder instead, and compares kNN with the published preset:
within one point it passes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PRESETS = ROOT / "presets"
REPEATS = PRESETS / "repeats.json"
SUPERVISED = PRESETS / "supervised.json"
# The middle one of those that `finetune` chooses from, for ResNets and ViTs.
SUPERVISED_RATES = {"vit": 5e-4, "resnet": 0.1}
DATA = {"cpu": "cifar10", "cifar": "cifar10", "imagenet": "imagenet2012"}
# What is measured, as the options of `kerassl evaluate`.
EVALUATIONS: list[list[str]] = [
    ["--protocol", "knn,linear"],
    ["--protocol", "linear", "--labels", "0.1", "--seeds", "3"],
    ["--protocol", "linear", "--labels", "0.01", "--seeds", "3"],
    ["--protocol", "linear", "--layer", "stages"],
    ["--protocol", "finetune", "--labels", "0.01", "--seeds", "3"],
]
# The scores that each of them leaves.
SCORES = [
    ["knn", "linear"],
    ["linear_10%"],
    ["linear_1%"],
    ["linear_stages"],
    ["finetune_1%"],
]
# Verified within this: repeated runs differ by the order of sums.
TOLERANCE = 0.01


def kerassl(*arguments: Any) -> None:
    """Runs the command line in a process of its own.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    command = [sys.executable, "-m", "kerassl", *map(str, arguments)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    subprocess.run(command, check=True, env=environment)


def train(folder: Path, recipe: Any, scale: str) -> None:
    """Trains a run, or what is left of it."""
    if (folder / "recipe.json").exists():
        kerassl("pretrain", "--resume", "--output", folder)
        return
    kerassl(
        *("pretrain", recipe.method, "--recipe", scale),
        *("--data", DATA[scale], "--output", folder),
        *("--epochs", recipe.epochs, "--seed", recipe.seed),
    )


def evaluate(folder: Path, encoder: str, scale: str, last: int) -> None:
    """Measures what isn't measured yet, by the first `last` of `EVALUATIONS`.

    Random weights are measured for the first preset of an architecture alone.
    """
    from kerassl.run_folder import read_scores

    data = DATA[scale]
    for options, names in zip(EVALUATIONS[:last], SCORES):
        if set(names) <= set(read_scores(folder)):
            continue
        for other, entry in read_index()["presets"].items():
            info = entry["info"]
            if (
                info["architecture"] == encoder
                and data in info["datasets"]
                and set(names) <= set(info["scores"])
            ):
                options = [*options, "--untrained-from", str(PRESETS / other)]
                break
        kerassl("evaluate", folder, "--data", data, *options)


def read_index() -> dict[str, Any]:
    """Returns what `presets/index.json` holds."""
    from kerassl.presets.load import INDEX

    return json.loads((PRESETS / INDEX).read_text(encoding="utf-8"))


def pack(folder: Path, name: str) -> None:
    """Makes the preset of a run, and its place in the index."""
    from kerassl import save_preset
    from kerassl.presets.load import INDEX
    from kerassl.presets.verify import verify_preset
    from kerassl.runs.files import replacing

    PRESETS.mkdir(exist_ok=True)
    target = PRESETS / name
    save_preset(folder, target, license="apache-2.0", overwrite=True)
    history = PRESETS / "history" / f"{name}.csv"
    history.parent.mkdir(exist_ok=True)
    with replacing(history) as temporary:
        temporary.write_bytes((folder / "history.csv").read_bytes())
    index = read_index()
    index["presets"][name] = {
        "source": name,
        "revision": None,
        "info": verify_preset(target).to_dict(),
    }
    index["presets"] = dict(sorted(index["presets"].items()))
    with replacing(PRESETS / INDEX) as temporary:
        text = json.dumps(index, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")


def write_entry(path: Path, key: str, entry: dict[str, Any]) -> None:
    """Adds an entry to a file of JSON."""
    from kerassl.runs.files import replacing

    kept = read_json(path)
    kept[key] = {**kept.get(key, {}), **entry}
    with replacing(path) as temporary:
        text = json.dumps(dict(sorted(kept.items())), indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Returns what a file of JSON holds; nothing if there is none."""
    if not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def repeat(folder: Path, name: str, recipe: Any, scale: str) -> None:
    """Keeps the scores of a run with another seed."""
    from kerassl.run_folder import read_scores

    if str(recipe.seed) in read_json(REPEATS).get(name, {}):
        print(f"{name} of seed {recipe.seed} is done.", flush=True)
        return
    train(folder, recipe, scale)
    evaluate(folder, recipe.encoder, scale, 1)
    scores = read_scores(folder)
    found = {score: scores[score]["accuracy"] for score in SCORES[0]}
    write_entry(REPEATS, name, {str(recipe.seed): found})


def supervise(recipe: Any, scale: str) -> None:
    """Trains an encoder with all labels, from random weights."""
    import keras

    from kerassl import data, encoders, evaluation, runs

    if recipe.encoder in read_json(SUPERVISED):
        return
    images, test = (data.load(DATA[scale], s) for s in ("train", "test"))
    keras.utils.set_random_seed(recipe.seed)
    (kind,) = (k for k in SUPERVISED_RATES if recipe.encoder.startswith(k))
    score = evaluation.fine_tune(
        encoders.build(recipe.encoder, images.image_shape),
        images,
        test,
        epochs=recipe.epochs,
        learning_rate=SUPERVISED_RATES[kind],
        verbose=2,
    )
    entry = {"data": DATA[scale], **score, **runs.environment()}
    write_entry(SUPERVISED, recipe.encoder, entry)


def is_packed(name: str, recipe: Any) -> bool:
    """Tells whether a preset of this very recipe is there, with all scores."""
    from kerassl.presets.verify import verify_preset

    if not (PRESETS / name).exists():
        return False
    info = verify_preset(PRESETS / name)
    wanted = {score for names in SCORES for score in names}
    return info.recipe_hash == recipe.hash and wanted <= set(info.scores)


def verify(name: str, recipe: Any, scale: str) -> bool:
    """Trains anew, and compares kNN with the published preset's."""
    from kerassl.presets.verify import verify_preset
    from kerassl.run_folder import read_scores

    published = verify_preset(PRESETS / name).scores["knn"]["accuracy"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        train(run, recipe, scale)
        kerassl("evaluate", run, "--data", DATA[scale], *EVALUATIONS[0])
        found = read_scores(run)["knn"]["accuracy"]
    print(f"{name}: kNN {found:.4f}, published {published:.4f}", flush=True)
    return abs(found - published) <= TOLERANCE


def main() -> int:
    """Does what the command line asks for and isn't done yet."""
    from kerassl import recipes

    parser = argparse.ArgumentParser(
        description="Train, evaluate and pack the presets of kerassl."
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=recipes.methods(), metavar="METHOD")
    add("--scale", choices=DATA, default="cpu")
    add("--epochs", type=int, help="default: the recipe's")
    add("--seed", type=int, default=0)
    add("--runs", type=Path, default=ROOT / "runs" / "presets")
    add("--verify", action="store_true", help="train anew and compare")
    add("--supervised", action="store_true", help="train with all labels")
    options = parser.parse_args()
    failed = []
    for method in options.only or recipes.methods():
        usual = recipes.get(method, options.scale)
        recipe = usual.replace(epochs=options.epochs, seed=options.seed)
        name = f"{method}_{recipe.encoder}_{DATA[options.scale]}"
        if recipe.epochs != usual.epochs:
            name += f"_{recipe.epochs}_epochs"
        try:
            if options.verify:
                if not verify(name, recipe, options.scale):
                    failed.append(name)
                continue
            folder = options.runs / f"{name}_{recipe.hash[:12]}"
            if options.supervised:
                supervise(recipe, options.scale)
                continue
            if recipe.seed:
                repeat(folder, name, recipe, options.scale)
                continue
            if is_packed(name, recipe):
                print(f"{name} is done.", flush=True)
                continue
            train(folder, recipe, options.scale)
            # Fine-tuning takes as long as all else: the preset is out before.
            for last in (len(SCORES) - 1, len(SCORES)):
                evaluate(folder, recipe.encoder, options.scale, last)
                pack(folder, name)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
