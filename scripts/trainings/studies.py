r"""Repeat the papers' studies of what their methods need, on a small scale.

    python scripts/train.py studies --only simsiam_stop_gradient
    python scripts/write_pages.py

Each study trains variants of a method's `cpu` recipe for a few epochs on the
first 10,000 training images of CIFAR-10, each in a process of its own, and
scores them on the last 5,000, which no variant trains on: kNN (k = 20,
temperature 0.07) and the linear probe, with the labels of the 10,000. Test
images are not read. Each run appends a JSON line to docs/results/studies.jsonl;
runs that are already there are not repeated. docs/studies.md shows them.
"""

import argparse
import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from results import RESULTS, append_line, read_lines, recipe_hashes

from trainings import tune

RUNS = RESULTS / "studies.jsonl"
IMAGES, EPOCHS = 10_000, 5


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run of a study.

    Args:
        changes: `field.key=value` of the recipe, as `tune --change` takes them.
        operations: the names of `OPERATIONS` that make the views, instead of
            the recipe's.
        without_predictor: bool. Whether predictions are the projections.
    """

    changes: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    without_predictor: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs that differ in one thing, and what the paper found.

    Args:
        title: str.
        method: str, whose recipe is changed.
        url: str, the paper.
        found: str, what the paper says, with its numbers.
        variants: dict of `Variant` by label, in the order of the picture.
        agrees: function of accuracies by label: whether they agree with the
            paper in direction.
        reason: str, why they may not, or what the numbers mean.
    """

    title: str
    method: str
    url: str
    found: str
    variants: Mapping[str, Variant]
    agrees: Callable[[Mapping[str, float]], bool]
    reason: str = ""


OPERATIONS = ("crop", "jitter", "gray", "blur", "solarize")


def operations(names: tuple[str, ...], size: int) -> list[Any]:
    """Returns SimCLR's operations of some names, at full strength.

    All are applied to every view, so that one of them is not diluted by views
    without it.
    """
    from kerassl import augmentation as views

    made = {
        "crop": views.RandomResizedCrop(size),
        "jitter": views.ColorJitter(0.4, 0.4, 0.4, 0.1, probability=1.0),
        "gray": views.RandomGrayscale(0.5),
        "blur": views.GaussianBlur(1.0),
        "solarize": views.Solarize(0.5),
    }
    return [views.Resize(size), *(made[name] for name in names)]


def _values(field: str, *values: Any) -> dict[str, Variant]:
    return {str(v): Variant((f"{field}={json.dumps(v)}",)) for v in values}


def _pairs() -> dict[str, Variant]:
    pairs = itertools.combinations_with_replacement(OPERATIONS, 2)
    return {
        " + ".join(dict.fromkeys(pair)): Variant(
            operations=tuple(dict.fromkeys(pair))
        )
        for pair in pairs
    }


def _best(scores: Mapping[str, float]) -> str:
    return max(scores, key=lambda label: scores[label])


STUDIES = {
    "simclr_augmentations": Study(
        "SimCLR: which views",
        "simclr",
        "https://arxiv.org/abs/2002.05709",
        "Of all pairs of augmentations, cropping with color distortion is best "
        "(56.3 % linear on ImageNet); no single one suffices (figure 5).",
        _pairs(),
        lambda scores: _best(scores) == "crop + jitter",
        "No single operation comes near that pair. Of the single ones, "
        "cropping has the best linear score and blurring, surprisingly, the "
        "best kNN.",
    ),
    "simclr_temperature": Study(
        "SimCLR: the temperature",
        "simclr",
        "https://arxiv.org/abs/2002.05709",
        "A temperature in between is best: linear accuracy is 59.7, 64.4, 60.7 "
        "and 58.0 % at 0.05, 0.1, 0.5 and 1 (table 5).",
        _values("method_args.temperature", 0.05, 0.1, 0.2, 0.5, 1.0),
        lambda scores: _best(scores) not in ("0.05", "1.0"),
    ),
    "simsiam_stop_gradient": Study(
        "SimSiam: the stop-gradient",
        "simsiam",
        "https://arxiv.org/abs/2011.10566",
        "Without the stop-gradient the outputs collapse: 0.1 % linear on "
        "ImageNet, and 67.7 % with it (table 1).",
        {
            "with": Variant(),
            "without": Variant(("method_args.stop_gradient=false",)),
        },
        lambda scores: (
            scores["without"] < min(scores["with"], scores["untrained"])
        ),
    ),
    "byol_predictor": Study(
        "BYOL: the predictor",
        "byol",
        "https://arxiv.org/abs/2006.07733",
        "Without the predictor the network collapses: 0.2 % on ImageNet after "
        "300 epochs, and 72.5 % with it (table 5b).",
        {"with": Variant(), "without": Variant(without_predictor=True)},
        lambda scores: (
            scores["without"] < min(scores["with"], scores["untrained"])
        ),
    ),
    "moco_shuffled_statistics": Study(
        "MoCo: statistics of shuffled groups",
        "moco_v1",
        "https://arxiv.org/abs/1911.05722",
        "If a query and its key are normalized with the same images, they "
        "identify each other by the batch's statistics. Shuffling the images "
        "among GPUs prevents it (section 3.3, and figure A.1).",
        {
            "one group": Variant(("method_args.batch_groups=1",)),
            "two groups": Variant(("method_args.batch_groups=2",)),
            "four groups": Variant(("method_args.batch_groups=4",)),
        },
        lambda scores: _best(scores) != "one group",
    ),
    "barlow_twins_width": Study(
        "Barlow Twins: the projector's width",
        "barlow_twins",
        "https://arxiv.org/abs/2103.03230",
        "Accuracy rises with the width, up to the largest one tried, 16,384 "
        "dimensions (figure 4).",
        _values("method_args.projection_dim", 32, 128, 512, 2048),
        lambda scores: scores["32"] < min(scores["512"], scores["2048"]),
        "The weight of the terms off the diagonal is 0.03 at each width, D, "
        "though there are D - 1 times as many as on it.",
    ),
    "barlow_twins_scaled_width": Study(
        "Barlow Twins: the width, with a weight that follows it",
        "barlow_twins",
        "https://arxiv.org/abs/2103.03230",
        "Accuracy rises with the width, up to the largest one tried, 16,384 "
        "dimensions (figure 4).",
        {
            str(width): Variant(
                (
                    f"method_args.projection_dim={width}",
                    f"method_args.off_diagonal_weight={0.03 * 512 / width}",
                )
            )
            for width in (32, 128, 512, 2048)
        },
        lambda scores: scores["32"] < min(scores["512"], scores["2048"]),
        "The weight of the terms off the diagonal is 0.03 at 512 dimensions, "
        "and falls as the width grows. Batches of 64 images, where the paper's "
        "have 2,048, may be too small to estimate so many correlations.",
    ),
    "mae_mask_ratio": Study(
        "MAE: the mask ratio",
        "mae",
        "https://arxiv.org/abs/2111.06377",
        "For a linear probe accuracy rises up to a ratio of 0.75, and falls "
        "toward 0.9 (figure 5).",
        _values("method_args.mask_ratio", 0.25, 0.5, 0.75, 0.9),
        lambda scores: _best(scores) in ("0.5", "0.75"),
    ),
}


def build(recipe: Any, variant: Variant, image_shape: Any, steps: int) -> Any:
    """Builds the variant's model, compiled."""
    import keras

    from kerassl import augmentation, recipes

    model = recipes.build_model(recipe, image_shape, steps)
    if variant.without_predictor:
        kind: Any = without_predictor(type(model))
    elif variant.operations:
        kind = type(model)
    else:
        return model
    config = model.get_config()
    if variant.operations:
        views = operations(variant.operations, image_shape[0])
        augmenter = augmentation.ViewAugmenter(views, seed=recipe.seed)
        config["augmenter"] = keras.saving.serialize_keras_object(augmenter)
    changed = kind.from_config(config)
    changed.compile(model.optimizer)
    return changed


def without_predictor(method: type) -> type:
    """Returns a method whose predictions are its projections."""
    import keras

    class WithoutPredictor(method):  # type: ignore[misc, valid-type]
        def head(self, name: str, *args: Any, **kwargs: Any) -> Any:
            if name == "predictor":
                return keras.layers.Identity()
            return super().head(name, *args, **kwargs)

    return WithoutPredictor


def recipe_of(name: str, label: str) -> Any:
    """Returns the recipe of a variant."""
    from kerassl import recipes

    study = STUDIES[name]
    recipe = recipes.get(study.method).replace(epochs=EPOCHS)
    return tune.changed(recipe, list(study.variants[label].changes))


def run(name: str, label: str) -> dict[str, Any]:
    """Trains and scores one variant."""
    from kerassl import data

    variant = STUDIES[name].variants[label]
    recipe = recipe_of(name, label)
    steps = IMAGES // recipe.batch_size
    shape = data.load("cifar10", "train", limit=1).image_shape
    model = build(recipe, variant, shape, steps)
    return {"study": name, "variant": label, **tune.run(recipe, model, IMAGES)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add(
        "--only",
        nargs="+",
        choices=STUDIES,
        default=list(STUDIES),
        metavar="STUDY",
        help=", ".join(STUDIES),
    )
    add("--here", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Starts the runs that are missing."""
    if options.here is not None:
        (name,) = options.only
        print(json.dumps(run(name, options.here)))
        return 0
    known = {
        (line["study"], line["variant"], line["recipe_hash"])
        for line in read_lines(RUNS)
    }
    failed = 0
    for name in options.only:
        for label in STUDIES[name].variants:
            now = recipe_hashes(recipe_of(name, label).to_dict())
            if any((name, label, one) in known for one in now):
                continue
            done = subprocess.run(
                [
                    *(sys.executable, sys.argv[0], "studies"),
                    *("--only", name, "--here", label),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            if done.returncode:
                failed = 1
                continue
            line = done.stdout.splitlines()[-1]
            print(line, flush=True)
            append_line(RUNS, json.loads(line))
    return failed
