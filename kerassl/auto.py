"""The rules of `kerassl pretrain auto`, each with its evidence.

`docs/choose.md` lists them, so that the page and the command can't differ. It
needs only the standard library.
"""

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kerassl.recipe_fields import read_recipes

#: The word for a method that the rules choose.
AUTO = "auto"
#: What small images go on from, by views of the full size, which it has not
#: seen yet; and large ones, if it is at hand.
PRESET = "simclr_resnet_nano_cifar10_fast"
RELEASED = "hub:dinov2_small"
#: Below so many images on a CPU, a trained encoder is taken.
FEW = 10_000
#: The `cpu` recipes are as long as in the benchmark, for so many images.
BENCHMARK = 50_000
MOST_EPOCHS = 100
#: SimCLR's batch on CPUs.
BATCH = 128
#: The `cpu` and `cifar` recipes are made for images of up to so many pixels.
SMALL_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of images and of the machine.

    Args:
        images: int > 0, how many there are.
        image_size: int > 0, their short side in pixels.
        channels: int > 0.
        accelerator: bool. Whether there is a GPU or a TPU.
        photos: bool. Whether a channel has 8 bits.
        labels: bool. Whether all images have labels.
        released: bool. Whether released weights for larger images are on this
            machine.
    """

    images: int
    image_size: int
    channels: int = 3
    accelerator: bool = False
    photos: bool = True
    labels: bool = False
    released: bool = False


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        when: str, the condition in words.
        then: str, the choice in words.
        evidence: str, Markdown.
        applies: function of `Facts`, and of a dict of what was given or chosen
            before.
        gives: function of the same that returns fields and their values:
            `"method"`, `"weights"`, `"epochs"` or `"views.preset"`. What was
            given or chosen before wins. A field for which that may be so has
            a rule of its own, so that `then` stays true.
    """

    when: str
    then: str
    evidence: str
    applies: Callable[[Facts, Mapping[str, Any]], bool]
    gives: Callable[[Facts, Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the rules chose, besides what was given.

    Attributes:
        method: str.
        weights: str, a source as in `kerassl.load_encoder`, or `None`.
        changes: fields of the recipe to values, with dots: as for
            `Recipe.change`.
        reasons: a line for each rule that had a say.
    """

    method: str
    weights: str | None
    changes: dict[str, Any]
    reasons: tuple[str, ...]


def _new_encoder(chosen: Mapping[str, Any]) -> bool:
    return not {"encoder", "weights"} & set(chosen)


def _cpu_epochs(chosen: Mapping[str, Any]) -> int:
    epochs: int = read_recipes(chosen["method"])["cpu"]["epochs"]
    return epochs


def _large(facts: Facts) -> bool:
    return facts.accelerator and facts.image_size > SMALL_SIZE


RULES = (
    Rule(
        f"without an accelerator, fewer than {FEW:,} color or gray images of "
        "8 bits",
        f"goes on from the preset `{PRESET}` with SimCLR",
        "it goes on to 64.2 % kNN with 4,000 images of CIFAR-10, which it "
        "knows (65.8 % before), and from 77.1 to 77.7 % with 2,000 of "
        "Fashion-MNIST, which it doesn't, each plus or minus one "
        "([going on](going_on.md#what-came-out)); ten epochs from scratch on "
        "10,000 images of CIFAR-10 reach 49.2 % "
        "([methods](methods.md#results-measured-here))",
        lambda facts, chosen: (
            _new_encoder(chosen)
            and not facts.accelerator
            and facts.images < FEW
            and facts.photos
            and facts.channels in (1, 3)
        ),
        lambda facts, chosen: {"method": "simclr", "weights": PRESET},
    ),
    Rule(
        f"without an accelerator, fewer than {FEW:,} images, from the preset "
        f"`{PRESET}`",
        "trains for 3 epochs",
        "as long as in the measurements on 4,000 images "
        "([going on](going_on.md#what-came-out))",
        lambda facts, chosen: (
            chosen.get("weights") == PRESET
            and not facts.accelerator
            and facts.images < FEW
        ),
        lambda facts, chosen: {"epochs": 3},
    ),
    Rule(
        f"an accelerator, color images of 8 bits above {SMALL_SIZE} px, and "
        "KerasHub has downloaded DINOv2's weights before",
        f"goes on from `{RELEASED}`; score it as it is first",
        "users who trained on their own photos found no gain over frozen "
        "DINOv2 (lightly-train, issue 433)",
        lambda facts, chosen: (
            _new_encoder(chosen)
            and _large(facts)
            and facts.released
            and facts.photos
            and facts.channels == 3
        ),
        lambda facts, chosen: {"weights": RELEASED},
    ),
    Rule(
        "weights of a DINOv2",
        "takes DINOv2's own objective",
        "it is the closest to how they were trained; not measured here",
        lambda facts, chosen: "dinov2" in str(chosen.get("weights", "")),
        lambda facts, chosen: {"method": "dinov2"},
    ),
    Rule(
        "a new ViT",
        "takes DINO",
        "83.8 % with nearest neighbors, where MAE has 72 % (ViT-S/16, "
        "Imagenette, 200 epochs; stable-pretraining); not measured here",
        lambda facts, chosen: str(chosen.get("encoder", "")).startswith(
            ("vit_", "dinov2_")
        ),
        lambda facts, chosen: {"method": "dino"},
    ),
    Rule(
        f"a batch of less than {BATCH} images is asked for",
        "takes FastSiam, which needs no negatives",
        "63.2 % kNN with batches of 64, where BYOL has 62.7 % and VICReg "
        "61.3 %, and SimCLR with 128 has 64.4 % ([benchmark](benchmark.md))",
        lambda facts, chosen: chosen.get("batch_size", BATCH) < BATCH,
        lambda facts, chosen: {"method": "fastsiam"},
    ),
    Rule(
        f"an accelerator and images above {SMALL_SIZE} px",
        "takes SwAV, with small crops",
        "86.4 % with nearest neighbors, where DINO has 83.8 and MAE 72 % "
        "(ViT-S/16, Imagenette, 200 epochs; stable-pretraining); the recipe is "
        "that of its authors for ImageNet; not measured here",
        lambda facts, chosen: _large(facts),
        lambda facts, chosen: {"method": "swav"},
    ),
    Rule(
        "anything else",
        "takes SimCLR",
        "64.4 % kNN on CIFAR-10, the most after ten epochs without labels or "
        "a teacher ([benchmark](benchmark.md))",
        lambda facts, chosen: True,
        lambda facts, chosen: {"method": "simclr"},
    ),
    Rule(
        "channels that are neither gray nor colors",
        "changes each channel on its own in the views",
        "no operation on colors means anything there; not measured "
        "([views](views.md))",
        lambda facts, chosen: facts.channels not in (1, 3),
        lambda facts, chosen: {"views.preset": "any_channels"},
    ),
    Rule(
        f"from scratch without an accelerator, fewer than {BENCHMARK:,} images",
        f"trains for more epochs, up to {MOST_EPOCHS}, for as many steps",
        "in ten epochs SimCLR has 49.2 % kNN with 10,000 images "
        "([methods](methods.md#results-measured-here)) and 64.4 % with 50,000 "
        "([benchmark](benchmark.md))",
        lambda facts, chosen: (
            not facts.accelerator
            and "weights" not in chosen
            and facts.images < BENCHMARK
        ),
        lambda facts, chosen: {
            "epochs": min(
                round(BENCHMARK * _cpu_epochs(chosen) / facts.images),
                MOST_EPOCHS,
            )
        },
    ),
    Rule(
        "labels for all images",
        "ignores them; `kerassl pretrain supcon` learns from them",
        "with all labels `resnet_nano` reaches 75.8 % on CIFAR-10 in ten "
        "epochs, where SimCLR and a linear classifier have 65.1 % "
        "([benchmark](benchmark.md))",
        lambda facts, chosen: facts.labels and chosen["method"] != "supcon",
        lambda facts, chosen: {},
    ),
)


def choose(facts: Facts, given: Mapping[str, Any] | None = None) -> Choice:
    """Chooses a method for some images.

    Args:
        facts: `Facts`.
        given: dict of what is given and isn't chosen: `"encoder"`,
            `"weights"`, `"epochs"`, `"batch_size"` or `"views.preset"`; or
            `"recipe"`, whose number of epochs then stays.

    Returns:
        A `Choice`.

    Example:
    ```python
    choice = kerassl.recipes.choose(kerassl.recipes.Facts(50_000, 32))
    choice.method  # "simclr"
    recipe = kerassl.recipes.default(choice.method, 32, accelerator=False)
    recipe = recipe.change(**choice.changes)
    ```
    """
    given = {k: v for k, v in (given or {}).items() if v is not None}
    chosen: dict[str, Any] = dict(given)
    fixed = {*given, *(["epochs"] if "recipe" in given else [])}
    reasons = []
    for rule in RULES:
        if not rule.applies(facts, chosen):
            continue
        fields = rule.gives(facts, chosen)
        new = {k: v for k, v in fields.items() if k not in {*chosen, *fixed}}
        if fields and not new:
            continue
        chosen |= new
        reasons.append(_plain(f"{rule.when}: {rule.then} ({rule.evidence})"))
    changes = {k: v for k, v in chosen.items() if k not in given}
    method = changes.pop("method")
    return Choice(method, changes.pop("weights", None), changes, tuple(reasons))


def command(arguments: Sequence[str], at: int, choice: Choice) -> str:
    """Returns the command line that names what was chosen.

    Args:
        arguments: the words after `kerassl`.
        at: int, the index of the method among them.
        choice: `Choice`.
    """
    words = ["kerassl", *arguments[:at], choice.method, *arguments[at + 1 :]]
    if choice.weights is not None:
        words += ["--from", choice.weights]
    for name, value in choice.changes.items():
        option = ["--set", f"{name}={value}"]
        words += [f"--{name}", str(value)] if "." not in name else option
    return shlex.join(words)


def table() -> str:
    """Returns the rules as a table in Markdown."""
    rows = [f"| {r.when} | {r.then} | {r.evidence} |" for r in RULES]
    return "\n".join(["| For | `auto` | Evidence |", "|---|---|---|", *rows])


def _plain(markdown: str) -> str:
    """Returns text without links and marks."""
    return re.sub(r" \(\[.*?\]\(.*?\)\)", "", markdown).replace("`", "")
