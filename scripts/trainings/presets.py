"""Train, evaluate and pack the presets of the zoo.

    python scripts/train.py presets --only simclr

For each method: `kerassl pretrain` by its recipe on the 50,000 training images
of CIFAR-10, without labels; `kerassl evaluate` on all 10,000 test images; and
`kerassl.runs.save_preset` into `presets/NAME`, with the run's history in
`presets/history/NAME.csv` and an entry in `presets/index.json`. Finished steps
are skipped and interrupted trainings resumed, so running the same command
again finishes the work. A preset that lacks scores is evaluated and packed
again without training, even in a fresh clone.

`--seed 1` trains the same method with another seed and writes its kNN and
linear scores to `presets/repeats.json`, to show how much runs vary. They are
removed when the preset is trained anew.
`--supervised` trains the encoders of these recipes with all labels for as many
epochs, those of the first method that has the encoder, and writes
`presets/supervised.json`.

`--epochs 20` overrides the recipe's epochs and adds them to the preset's name:
`NAME_20_epochs`; `--minutes 8` takes as many as fit into eight minutes of this
machine, by a short measurement, and prints them. To go on with such a run, give
them as `--epochs`, since another measurement may find others.

`--scale fast` takes the recipe with small views, whose preset is `NAME_fast`,
and `--scale fast_32px` goes on from that one by the recipe `cpu`: together an
hour of two CPU cores. `--scale cifar` takes the recipes for a GPU
(`resnet_18_small`; for 200 epochs with `--epochs 200`), and `--scale imagenet
--imagenet PATH` those for ImageNet, from a folder with `train/` and `test/`
(the validation images).

`--verify` trains again in a temporary folder and compares kNN with the
published preset: it passes within one point.
"""

import argparse
import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results import PRESETS, ROOT, read_json, recipe_hashes, weights_hash

from trainings import pace

REPEATS = PRESETS / "repeats.json"
SUPERVISED = PRESETS / "supervised.json"
# The middle one of the rates that `finetune` tries, for ViTs and ResNets.
SUPERVISED_RATES = {"vit": 5e-4, "resnet": 0.1}
# The data set of each scale: the end of its presets' names.
SCALES = {
    "cpu": "cifar10",
    "fast": "cifar10",
    "fast_32px": "cifar10",
    "cifar": "cifar10",
    "imagenet": "imagenet",
}
# Scales that go on from the presets of another, by the recipe `cpu`.
STARTS = {"fast_32px": "fast"}
IMAGE_SIZE = 32  # of CIFAR-10
# Measurements, as options of `kerassl evaluate`.
EVALUATIONS: list[list[str]] = [
    ["--protocol", "knn,linear"],
    ["--protocol", "linear", "--labels", "0.1", "--seeds", "3"],
    ["--protocol", "linear", "--labels", "0.01", "--seeds", "3"],
    ["--protocol", "linear", "--layer", "stages"],
    ["--protocol", "finetune", "--labels", "0.01", "--seeds", "3"],
]
# The scores that each measurement writes.
SCORES = [
    ["knn", "linear"],
    ["linear_10%"],
    ["linear_1%"],
    ["linear_stages"],
    ["finetune_1%"],
]
# Of `--verify`: repeated runs differ by the order of sums.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Task:
    """A preset to make.

    Args:
        name: str, the preset's.
        recipe: `kerassl.recipes.Recipe`.
        data: str, as in `kerassl pretrain`.
        folder: path of the run.
        start: `Task` or `None`, whose encoder it goes on from.
    """

    name: str
    recipe: Any
    data: str
    folder: Path
    start: "Task | None" = None

    @property
    def architecture(self) -> str:
        """The encoder's name in `kerassl.encoders.names()`."""
        return (self.start or self).recipe.encoder


def kerassl(*arguments: Any) -> None:
    """Runs `kerassl` in a process of its own.

    SIGINT and SIGTERM reach that process, which saves a checkpoint first.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    command = [sys.executable, "-m", "kerassl", *map(str, arguments)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    process = subprocess.Popen(command, env=environment)

    def pass_on(number: int, frame: Any) -> None:
        process.send_signal(number)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        process.wait()
    finally:  # Ctrl-C in a terminal reaches both processes.
        process.wait()
        signal.signal(signal.SIGTERM, before)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def train(task: Task) -> None:
    """Trains a run, or resumes it."""
    from kerassl.run_folder import HISTORY, RECIPE

    recipe, folder = task.recipe, task.folder
    if (folder / HISTORY).exists():
        text = (folder / HISTORY).read_text(encoding="utf-8")
        if len(list(csv.DictReader(text.splitlines()))) == recipe.epochs:
            return
    if (folder / RECIPE).exists():
        kerassl("pretrain", "--resume", "--output", folder)
        return
    options = ["--epochs", recipe.epochs, "--seed", recipe.seed]
    if task.start is not None:
        options += ["--from", made(task.start)]
    kerassl(
        *("pretrain", recipe.method, "--recipe", recipe.name),
        *("--data", task.data, "--output", folder, *options),
    )


def made(task: Task) -> str | Path:
    """Returns the encoder of a task, which is trained if it is missing.

    That of the first seed is a preset; others are runs.
    """
    if not task.recipe.seed:
        make(task)
        return task.name
    train(task)
    return task.folder


def evaluate(task: Task, last: int) -> None:
    """Runs the first `last` of `EVALUATIONS`, where scores are missing.

    The untrained scores of an architecture are measured once and copied.
    """
    from kerassl import recipes
    from kerassl.run_folder import read_scores

    encoder, data = task.architecture, task.data
    pooling = recipes.METHODS[task.recipe.method].pooling
    for options, names in zip(EVALUATIONS[:last], SCORES):
        if set(names) <= set(read_scores(task.folder)):
            continue
        for other, entry in read_index()["presets"].items():
            info = entry["info"]
            if (
                info["architecture"] == encoder
                and recipes.METHODS[info["method"]].pooling == pooling
                and data in info["datasets"]
                and set(names) <= set(info["scores"])
            ):
                options = [*options, "--untrained-from", other]
                break
        kerassl("evaluate", task.folder, "--data", data, *options)


def read_index() -> dict[str, Any]:
    """Returns the contents of `presets/index.json`."""
    from kerassl.presets.load import INDEX

    return json.loads((PRESETS / INDEX).read_text(encoding="utf-8"))


def pack(task: Task) -> None:
    """Saves a run as a preset and adds it to the index."""
    from kerassl.files import replacing
    from kerassl.presets.format.verify import verify_preset
    from kerassl.presets.load import INDEX
    from kerassl.runs import save_preset

    folder, name = task.folder, task.name
    PRESETS.mkdir(exist_ok=True)
    target = PRESETS / name
    save_preset(folder, target, license="apache-2.0", overwrite=True)
    history = PRESETS / "history" / f"{name}.csv"
    history.parent.mkdir(exist_ok=True)
    with replacing(history) as temporary:
        temporary.write_bytes((folder / "history.csv").read_bytes())
    index, info = read_index(), verify_preset(target).to_dict()
    before = index["presets"].get(name, {}).get("info")
    if before is not None and weights_hash(before) != weights_hash(info):
        # Other seeds were compared with the former training.
        others = read_json(REPEATS)
        if others.pop(name, None):
            write_json(REPEATS, others)
    index["presets"][name] = {"source": name, "revision": None, "info": info}
    index["presets"] = dict(sorted(index["presets"].items()))
    write_json(PRESETS / INDEX, index)


def unpack(task: Task) -> None:
    """Restores enough of a preset's run to evaluate it."""
    from kerassl import load_encoder
    from kerassl.presets.format.info import PresetInfo
    from kerassl.run_folder import ENCODER, HISTORY, RECIPE, SCORES
    from kerassl.runs.weights import describe_weights

    info = PresetInfo.from_dict(read_index()["presets"][task.name]["info"])
    settings = {
        "recipe": info.recipe,
        "recipe_hash": info.recipe_hash,
        "data": task.data,
        "limit": None,
        "data_dir": None,
        "backend": info.training["backend"],
        "device": info.training["device"],
        "versions": info.versions,
    }
    if task.start is not None:
        started = task.start.name
        encoder = load_encoder(started)
        settings["weights"] = describe_weights(started, encoder)
    # Renamed when complete, so that no partial run is resumed.
    folder = task.folder.with_name(f".{task.folder.name}.partial")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load_encoder(task.name).save(folder / ENCODER)
    history = PRESETS / "history" / f"{task.name}.csv"
    (folder / HISTORY).write_bytes(history.read_bytes())
    for name, fields in ((SCORES, info.scores), (RECIPE, settings)):
        text = json.dumps(fields, indent=2) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    folder.rename(task.folder)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file, in one go."""
    from kerassl.files import replacing

    with replacing(path) as temporary:
        text = json.dumps(content, indent=2) + "\n"
        temporary.write_text(text, encoding="utf-8")


def write_entry(path: Path, key: str, entry: dict[str, Any]) -> None:
    """Adds an entry to a JSON file, or updates it."""
    kept = read_json(path)
    kept[key] = {**kept.get(key, {}), **entry}
    write_json(path, dict(sorted(kept.items())))


def repeat(task: Task) -> None:
    """Records the scores of a run with another seed."""
    from kerassl.run_folder import read_scores

    seed, of = str(task.recipe.seed), task.recipe.replace(seed=0).hash
    known = read_json(REPEATS).get(task.name, {})
    hashes = recipe_hashes(task.recipe.replace(seed=0).to_dict())
    if known.get(seed, {}).get("preset_recipe") in hashes:
        print(f"{task.name} of seed {seed} is done.", flush=True)
        return
    train(task)
    evaluate(task, 1)
    scores = read_scores(task.folder)
    found = {score: scores[score]["accuracy"] for score in SCORES[0]}
    write_entry(REPEATS, task.name, {seed: {"preset_recipe": of, **found}})


def supervise(task: Task) -> None:
    """Trains an encoder with all labels, from random weights."""
    import keras

    from kerassl import data, encoders, evaluation, runs

    recipe = task.recipe
    wanted = {"epochs": recipe.epochs, "seed": recipe.seed, "data": task.data}
    if wanted.items() <= read_json(SUPERVISED).get(recipe.encoder, {}).items():
        print(f"{recipe.encoder} with all labels is done.", flush=True)
        return
    images, test = (data.load(task.data, s) for s in ("train", "test"))
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
    entry = {**score, **wanted, **runs.environment()}
    write_entry(SUPERVISED, recipe.encoder, entry)


def missing(task: Task) -> set[str] | None:
    """Returns the scores that the preset of this recipe lacks.

    `None` if there is no preset of this recipe.
    """
    entry = read_index()["presets"].get(task.name)
    hashes = recipe_hashes(task.recipe.to_dict())
    if entry is None or entry["info"]["recipe_hash"] not in hashes:
        return None
    scores = entry["info"]["scores"]
    return {score for names in SCORES for score in names} - set(scores)


def verify(task: Task) -> bool:
    """Trains again and compares kNN with the published preset."""
    from kerassl.run_folder import read_scores

    name = task.name
    if missing(task) is None:
        print(f"There is no preset {name} of this recipe.", file=sys.stderr)
        return False
    info = read_index()["presets"][name]["info"]
    published = info["scores"]["knn"]["accuracy"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / name
        train(dataclasses.replace(task, folder=run))
        kerassl("evaluate", run, "--data", task.data, "--protocol", "knn")
        found = read_scores(run)["knn"]["accuracy"]
    print(f"{name}: kNN {found:.4f}, published {published:.4f}", flush=True)
    return abs(found - published) <= TOLERANCE


def make(task: Task) -> None:
    """Trains, evaluates and packs, skipping finished steps."""
    lacking = missing(task)
    if lacking is not None and not lacking:
        print(f"{task.name} is done.", flush=True)
        return
    if lacking and not task.folder.exists():
        unpack(task)
    train(task)
    # Fine-tuning takes as long as the rest, so pack once before it.
    for last in (len(SCORES) - 1, len(SCORES)):
        evaluate(task, last)
        pack(task)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("--only", nargs="+", metavar="METHOD", help="default: all methods")
    add("--scale", choices=SCALES, default="cpu")
    add("--imagenet", type=Path, help="its folder, for --scale imagenet")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, help="default: the recipe's")
    length.add_argument(
        "--minutes", type=float, help="take the epochs that fit into them here"
    )
    add("--seed", type=int, default=0)
    add("--runs", type=Path, default=ROOT / "runs" / "presets")
    add("--verify", action="store_true", help="train again and compare")
    add("--supervised", action="store_true", help="train with all labels")


def plan(method: str, scale: str, options: argparse.Namespace) -> Task:
    """Returns what is to be made of a method."""
    from kerassl import recipes

    data = SCALES[scale]
    source = f"folder:{options.imagenet}" if options.imagenet else data
    if scale in STARTS:
        usual = recipes.going_on(recipes.get(method)).replace(
            image_size=IMAGE_SIZE
        )
        first = argparse.Namespace(**{**vars(options), "epochs": None})
        start = plan(method, STARTS[scale], first)
    else:
        usual, start = recipes.get(method, scale), None
    epochs = options.epochs
    if options.minutes is not None:
        epochs = pace.epochs_in(options.minutes, usual, source)
        print(f"{method}: {epochs} epochs.", flush=True)
    recipe = usual.replace(epochs=epochs, seed=options.seed)
    encoder = usual.encoder if start is None else start.recipe.encoder
    name = f"{method}_{encoder}_{data}"
    if scale.startswith("fast"):  # Its encoder is that of `cpu`.
        name += f"_{scale}"
    if recipe.epochs != usual.epochs:
        name += f"_{recipe.epochs}_epochs"
    folder = options.runs / f"{name}_{recipe.hash[:12]}"
    return Task(name, recipe, source, folder, start)


def main(options: argparse.Namespace) -> int:
    """Makes what is missing.

    Raises:
        ValueError: if a method is unknown, or the options don't go together.
    """
    from kerassl import recipes

    if (options.scale == "imagenet") != (options.imagenet is not None):
        raise ValueError("--scale imagenet and --imagenet PATH go together.")
    if options.scale in STARTS and (options.minutes or options.supervised):
        raise ValueError(
            "--minutes and --supervised are for training from random weights. "
            f"Received: --scale {options.scale}"
        )
    failed, supervised = [], set()
    scale = STARTS.get(options.scale, options.scale)
    methods = [m for m in recipes.methods() if scale in recipes.names(m)]
    for method in options.only or methods:
        task = plan(method, options.scale, options)
        name, recipe = task.name, task.recipe
        try:
            if options.verify:
                if not verify(task):
                    failed.append(name)
            elif options.supervised:
                if recipe.encoder not in supervised:
                    supervise(task)
                supervised.add(recipe.encoder)
            elif recipe.seed:
                repeat(task)
            else:
                make(task)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
