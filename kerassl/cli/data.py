"""`kerassl data`: says what a source of images holds."""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kerassl.auto import AUTO, command
from kerassl.cli.errors import UserError, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import (
    DATA,
    add_data_dir,
    add_max_unreadable,
    add_range,
    check_data,
    positive,
)
from kerassl.reading import one_line
from kerassl.recipe_fields import find_recipe

if TYPE_CHECKING:
    from kerassl.data.inspection import Inspection

# How many entries of a kind are printed; --json has all.
SHOWN = 10
_LIMIT = 10_000


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "data",
        help="check images, and measure their channels",
        description="Says what a source of images holds, before it is trained "
        "on.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, run, help in (
        (
            "check",
            check,
            "count images by class, size, mode and format; name those that "
            "can't be read, and why; measure the speed of decoding",
        ),
        (
            "stats",
            stats,
            "print the mean and standard deviation of the channels",
        ),
    ):
        action = actions.add_parser(name, help=help, description=help)
        action.set_defaults(command=run)
        add = action.add_argument
        add("source", metavar="SOURCE", help=DATA)
        add("--split", default="train", help="train (the default), test, ...")
        first = ", but the first ones of arrays" if run is stats else ""
        add(
            "--limit",
            type=positive,
            default=_LIMIT,
            help="decode this many images at most, evenly spaced"
            f"{first} ({_LIMIT:,})",
        )
        add(
            "--image-size",
            type=positive,
            help="the size to which photos are resized (default: 224)",
        )
        add_range(action)
        add_data_dir(action)
        if run is check:
            add(
                "--for",
                dest="method",
                metavar="METHOD",
                help="also run a few steps of METHOD, and say how many CPU "
                "cores it takes to decode images that fast; needs at least "
                "one batch of images. With auto: say what `kerassl pretrain "
                "auto` would choose",
            )
            add("--recipe", help="its recipe (default: that of pretrain)")
        else:
            add_max_unreadable(action)
        add("--json", action="store_true", help="print JSON instead")


def check(options: argparse.Namespace) -> int:
    """Runs `kerassl data check`; returns 1 if an image can't be read."""
    check_data(options.source)
    if options.method not in (None, AUTO):
        with user_errors():
            find_recipe(options.method, options.recipe or "cpu")
    elif options.recipe is not None:
        raise UserError("--recipe is for --for METHOD.")
    load_keras()
    from kerassl.cli.time_left import time_left
    from kerassl.data.inspection import inspect

    with user_errors(), time_left() as show:
        found = inspect(
            options.source,
            options.split,
            image_size=options.image_size,
            limit=options.limit,
            data_dir=options.data_dir,
            value_range=options.value_range,
            progress=lambda done, all: show("decoding", done, all),
        )
    if not options.json:  # Before what may fail.
        _print(found)
    fed, chosen = {}, {}
    if options.method == AUTO:
        chosen = _chosen(options)
    elif options.method:
        fed = _feeding(options)
    if options.json:
        told = dataclasses.asdict(found) | ({"feeding": fed} if fed else {})
        told |= {"chosen": chosen} if chosen else {}
        print(json.dumps(told, indent=2))
    else:
        for reason in chosen.get("reasons", ()):
            print(f"because {one_line(reason)}")
        if chosen:
            print(f"so {one_line(chosen['command'])}")
        if fed:
            need = f"{fed['cores']:.1f} cores feed them"
            if fed["cores"] < 0.95:
                need = "one core feeds them"
            print(
                f"{fed['method']}, recipe {fed['recipe']}: its steps take "
                f"{fed['images_per_second']:,.0f} images a second here. "
                f"Cutting the views of one takes {1000 * fed['seconds']:.1f} "
                f"ms of a core, so {need}"
            )
    return 1 if found.unreadable else 0


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what `kerassl pretrain auto` would choose."""
    from kerassl import recipes

    words = ["pretrain", AUTO, "--data", options.source]
    if options.image_size:
        words += ["--image-size", str(options.image_size)]
    if options.value_range:
        words.append(f"--range={options.value_range}")
    if options.data_dir:
        words += ["--data-dir", options.data_dir]
    with user_errors():
        facts = recipes.facts(
            options.source,
            image_size=options.image_size,
            data_dir=options.data_dir,
            value_range=options.value_range,
        )
        choice = recipes.choose(facts)
    found = dataclasses.asdict(choice)
    return {**found, "command": command(words, words.index(AUTO), choice)}


def _feeding(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what feeding a method's steps takes."""
    from kerassl import recipes
    from kerassl.cli.auto import choose_recipe
    from kerassl.data.levels import decoder_for
    from kerassl.data.load import find
    from kerassl.data.photos import DEFAULT_SIZE, Photos
    from kerassl.runs.feeding import measure_feeding

    with user_errors():
        if options.recipe:
            recipe = recipes.get(options.method, options.recipe)
        else:
            recipe, _ = choose_recipe(
                options.method,
                options.source,
                data_dir=options.data_dir,
                image_size=options.image_size,
            )
        size = options.image_size or recipe.image_size or DEFAULT_SIZE
        recipe = recipe.replace(image_size=size)
        photos, *_ = find(
            options.source,
            options.split,
            image_size=size,
            data_dir=options.data_dir,
            value_range=options.value_range,
        )
        if not isinstance(photos, Photos):
            raise ValueError(
                f"{options.source} holds arrays, which need no decoding: --for "
                "is for photos."
            )
        photos.decoder = decoder_for(photos, None, options.value_range)
        fed = measure_feeding(recipe, photos)
    return {
        "method": recipe.method,
        "recipe": recipe.name,
        "images_per_second": fed.images_per_second,
        "seconds": fed.seconds,
        "cores": fed.cores,
    }


def _print(found: "Inspection") -> None:
    source = one_line(f"{found.source}, split {found.split}")
    print(f"{source}: {found.images:,} images")
    if found.read < found.images:
        print(f"  looked at {found.read:,} of them, evenly spaced")
    for note in found.notes:
        print(f"  {one_line(note)}")
    for title, counts in (
        ("classes", found.classes),
        ("formats", found.formats),
        ("modes", found.modes),
        ("short sides, in pixels", found.short_sides),
        ("sizes, width x height", found.sizes),
        ("not kept", found.losses),
    ):
        if counts:
            print(f"{title}: {_listed(counts)}")
    if found.unreadable:
        print(f"can't be read: {len(found.unreadable):,}")
        for name, reason in list(found.unreadable.items())[:SHOWN]:
            print(f"  {one_line(name)}: {one_line(reason)}")
        if len(found.unreadable) > SHOWN:
            print(f"  and {len(found.unreadable) - SHOWN:,} more (--json)")
    if found.formats and not any("array" in name for name in found.formats):
        print(
            f"decoding: {found.images_per_second:,.0f} images a second on "
            f"{found.cores} core{'s' * (found.cores != 1)}"
        )


def _listed(counts: Mapping[str, int]) -> str:
    """Lists the first ones."""
    pairs = list(counts.items())
    words = [f"{one_line(name)} ({n:,})" for name, n in pairs[:SHOWN]]
    if len(pairs) > SHOWN:
        words.append(f"and {len(pairs) - SHOWN:,} more (--json)")
    return ", ".join(words)


def stats(options: argparse.Namespace) -> int:
    """Runs `kerassl data stats`."""
    check_data(options.source)
    load_keras()
    from kerassl.cli.time_left import time_left
    from kerassl.data import load
    from kerassl.data.inspection import channel_statistics

    with user_errors(), time_left() as show:
        data = load(
            options.source,
            options.split,
            image_size=options.image_size,
            limit=options.limit,
            data_dir=options.data_dir,
            max_unreadable=options.max_unreadable,
            value_range=options.value_range,
        )
        found: dict[str, Any] = channel_statistics(
            data.images, lambda done, all: show("decoding", done, all)
        )
    if data.value_range is not None:
        found |= {"range": data.value_range.to_dict()}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    count, channels = found["images"], len(found["mean"])
    print(f"{count:,} images, {channels} channels, values in [0, 255]")
    if data.value_range is not None:
        print(f"of values from {data.value_range}")
    for name in ("mean", "std"):
        print(f"{name}: {', '.join(f'{value:.2f}' for value in found[name])}")
    scaled = [[v / 255 for v in found[name]] for name in ("mean", "std")]
    words = ["[" + ", ".join(f"{v:.4f}" for v in s) + "]" for s in scaled]
    print(f"of values in [0, 1]: mean {words[0]}, std {words[1]}")
    return 0
