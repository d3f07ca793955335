"""The labeled images to learn from and to score."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from kerassl import data as kerassl_data
from kerassl.data import ImageData
from kerassl.data.errors import SplitError
from kerassl.data.files import listed
from kerassl.evaluation.labels import encode_labels, labels_by_name
from kerassl.value_range import Percentiles, parse_range

# The share of each class that is held out for scoring if there is no split.
HELD_OUT = 0.2
# The splits to score: the first one that has labels.
SCORED = ("test", "validation")


class LabeledSplits:
    """Labeled images to learn from and to score, with consistent labels.

    Args:
        data: str, as in `kerassl.data.load`, the default of `train` and
            `test`. Its split `"test"` is scored, or `"validation"` if there
            are no labeled test images. Without either, a fifth of each class
            of `"train"` is held out.
        train: str, the data whose split `"train"` to learn from.
        test: str, the data to score; all of it if it has no splits.
        train_limit: int or `None`, the number of training images to use.
        test_limit: int or `None`, the number of test images to use.
        **options: as in `kerassl.data.load`.

    Raises:
        ValueError: if there are no labels, an image is in both parts, or no
            class is in both.
        FileNotFoundError: if the data don't exist.
    """

    def __init__(
        self,
        data: str | None = None,
        train: str | None = None,
        test: str | None = None,
        *,
        train_limit: int | None = None,
        test_limit: int | None = None,
        **options: Any,
    ):
        source = data if train is None else train
        scored = data if test is None else test
        if source is None or scored is None:
            raise ValueError(
                "Give `data`, or both `train` and `test`. Received: "
                f"train={train!r}, test={test!r}"
            )
        # How the parts differ from the splits `"train"` and `"test"`, as
        # entries of the scores and as sentences.
        self.settings: dict[str, float | str] = {}
        self.notes: list[str] = []

        def load(spec: str, split: str, limit: int | None) -> ImageData:
            return kerassl_data.load(
                spec,
                split,
                limit=limit,
                **options,
            )

        if isinstance(parse_range(options.get("value_range")), Percentiles):
            # Measured once, or equal values would differ between the parts.
            learned = load(source, "train", train_limit)
            options["value_range"] = learned.value_range
        found = {}
        for split in SCORED:
            with contextlib.suppress(SplitError):
                found[split] = load(scored, split, test_limit)
                if _are_labeled(found[split]):
                    break
        asked = next(filter(_are_labeled, found.values()), None)
        why = f"{scored} has no test split"
        if "test" in found:
            why = f"The test split of {scored} has no labels"
        if asked is not None and asked is not found.get("test"):
            self.settings["test_split"] = "validation"
            self.notes.append(f"{why}: its validation split is scored.")
        if asked is None and source != scored:
            asked = found.get("test") or load(scored, "train", test_limit)
        if asked is None:
            # Held out before the limit applies: the same images at any limit.
            learned, asked = load(source, "train", None).split(HELD_OUT, seed=0)
            learned = learned.limited(train_limit)
            asked = asked.limited(test_limit)
            self.settings["held_out"] = HELD_OUT
            self.notes.append(
                f"{why}: {HELD_OUT:.0%} of the training images of each class "
                "are held out to be scored, the same ones each time."
            )
        else:
            learned = load(source, "train", train_limit)
        # With a commit, if they are on the Hub, as a run records them.
        names = dict.fromkeys([learned.name, asked.name])
        self.name = " and ".join(names)
        self.parts = {"train": learned, "test": asked}
        self._check()

    def _check(self) -> None:
        for split, part in self.parts.items():
            if part.labels is None:
                raise ValueError(
                    f"The {split} images of {part.name} have no labels. "
                    "Evaluation needs a labeled data set."
                )
        train, test = self.parts.values()
        files = [
            set(map(os.path.abspath, p.paths or ())) for p in (train, test)
        ]
        if shared := files[0] & files[1]:
            raise ValueError(
                f"{len(shared):,} images are both in the training and in the "
                f"test data, such as {min(shared)}."
            )
        if (train.class_names is None) != (test.class_names is None):
            self.notes.append(
                f"Only one of {train.name} and {test.name} has class names: "
                "classes are compared by number."
            )
        labels = labels_by_name(train, test)
        for split, part, new in zip(self.parts, (train, test), labels):
            if new is not part.labels:
                self.parts[split] = dataclasses.replace(
                    part, labels=new, class_names=None
                )
        classes, numbers = encode_labels(dict(zip(self.parts, labels)))
        known, asked = map(np.unique, numbers)
        missed = ~np.isin(numbers[1], known)
        unknown = _named(classes[n] for n in np.setdiff1d(asked, known))
        if missed.all():
            raise ValueError(
                "No test image has a class of the training images. Found "
                f"{unknown} in the test images, and "
                f"{_named(classes[n] for n in known)} in the training images."
            )
        if missed.any():
            self.notes.append(
                f"{missed.sum():,} of {len(missed):,} test images have classes "
                f"that no training image has, and count as missed: {unknown}."
            )


def _are_labeled(part: ImageData) -> bool:
    """Returns whether there are labels; TFDS marks missing ones by -1."""
    return part.labels is not None and bool((part.labels >= 0).any())


def _named(classes: Iterable[int | str]) -> str:
    return listed(list(map(repr, classes)))
