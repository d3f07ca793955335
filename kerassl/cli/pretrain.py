"""`kerassl pretrain`: trains an encoder on images without labels."""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from kerassl.auto import AUTO
from kerassl.cli.auto import choose_method, choose_recipe, print_choice
from kerassl.cli.errors import UserError, print_error, print_note, user_errors
from kerassl.cli.loading import load_keras
from kerassl.cli.options import (
    DATA,
    add_data_dir,
    add_max_unreadable,
    add_range,
    positive,
    seed,
)
from kerassl.cli.pretrain_checks import (
    check_options,
    check_output,
    recipe_changes,
)
from kerassl.environment import child_variables
from kerassl.names import GUARDS, MAX_UNREADABLE, MONITORS, PRECISIONS
from kerassl.reading import one_line
from kerassl.registry import entries
from kerassl.run_folder import encoder_file

if TYPE_CHECKING:
    from kerassl.runs import Run

DESCRIPTION = """\
Trains an encoder on images without labels, with a recipe of the method. Writes
recipe.json, history.csv, checkpoint.keras and encoder.keras to OUTPUT. Ctrl-C
stops after the current step; --resume continues exactly there.
"""


def add_parser(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = commands.add_parser(
        "pretrain",
        help="train an encoder on images without labels",
        description=DESCRIPTION,
    )
    parser.set_defaults(command=run)
    add = parser.add_argument
    add(
        "method",
        nargs="?",
        metavar="METHOD",
        help=f"{', '.join(entries())}; or {AUTO}, which chooses one for the "
        "images and says why",
    )
    add("--data", help=DATA)
    add("--output", help="the run's folder (default: runs/METHOD_DATA)")
    add(
        "--recipe",
        help="cpu, cifar or imagenet (default: cpu without a GPU or TPU; with "
        "one, cifar for images up to 64 pixels and imagenet for larger ones), "
        "fast (simclr on CPUs), or a TOML file of recipes, as FILE.toml or "
        "FILE.toml:NAME",
    )
    add(
        "--set",
        action="append",
        default=[],
        dest="changes",
        metavar="FIELD.KEY=VALUE",
        help="change a field of the recipe, such as optimizer.learning_rate="
        "0.8, views.blur=0 or 'views.crop_area=[0.2, 1.0]'. The value is "
        "TOML. Can be repeated",
    )
    add(
        "--encoder",
        help="untrained, such as resnet_nano, dinov2_small or "
        "keras:MobileNetV3Small, or with its weights, such as "
        "hub:dinov2_small (default: the recipe's)",
    )
    add(
        "--from",
        dest="weights",
        metavar="WEIGHTS",
        help="go on from trained weights: a run's folder, a preset (its name, "
        "hf://owner/name or its folder), a .keras file, a preset of KerasHub "
        "(hub:NAME), or dinov2_small, dinov2_base or imagenet (a ResNet-50) "
        "for released weights. The encoder is frozen at first and then learns "
        "slowly",
    )
    add(
        "--epochs",
        type=positive,
        help="default: the recipe's. With --resume: more than the run has",
    )
    add("--batch-size", type=positive, help="default: the recipe's")
    add(
        "--image-size",
        type=positive,
        help="resize images to it (default: the recipe's, or the data's own, "
        "but at most 64 if the recipe is cpu by default)",
    )
    add("--limit", type=positive, help="use this many images at most")
    add_max_unreadable(parser, str(MAX_UNREADABLE))
    add_range(
        parser,
        "(default: what the files say; with --from, that of the weights)",
    )
    add("--seed", type=seed, help="default: the recipe's")
    add(
        "--precision",
        help=f"{', '.join(PRECISIONS)} (default: the recipe's, or float32). "
        "auto is mixed_bfloat16 on GPUs and TPUs that have it, and float32 "
        "elsewhere",
    )
    add_data_dir(parser)
    add(
        "--keep",
        type=positive,
        help="also keep the checkpoints of the last KEEP epochs, in "
        "OUTPUT/checkpoints (default: none)",
    )
    add(
        "--checkpoint-every",
        type=positive,
        metavar="EPOCHS",
        help="write the files after every so many epochs (default: 1), and at "
        "the end",
    )
    add(
        "--monitor",
        metavar="NAMES",
        type=lambda text: [name.strip() for name in text.split(",")],
        help=f"log what the features can do as they are learned: "
        f"{', '.join(MONITORS)}, with commas between them. The first two need "
        "labels",
    )
    add(
        "--guard",
        choices=GUARDS,
        help="with --from: stop when the encoder is clearly worse than at the "
        "start, and keep the best one. neighbors (the default) needs no "
        "labels, knn uses the labels of 2,000 training images, off disables it",
    )
    add(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        help="write OUTPUT/tensorboard; needs TensorFlow and TensorBoard",
    )
    add(
        "--devices",
        type=positive,
        help="split each batch over this many devices of this host (default: "
        "1). With several processes, the total over all of them",
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--force", action="store_true", help="overwrite a run in OUTPUT"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in OUTPUT. Only --output is required; "
        "--epochs, --data-dir, --devices, --monitor, --guard, --keep, "
        "--checkpoint-every and --tensorboard may change",
    )


def run(options: argparse.Namespace) -> int:
    """Runs the command; returns the exit code."""
    with user_errors():
        check_options(options)
        if options.output is None:
            data = re.sub(r"[^\w.-]+", "_", options.data)
            options.output = f"runs/{options.method}_{data}"
        check_output(options)
    load_keras()
    from kerassl.distributed import (
        devices,
        lacks_processes,
        process,
        started_devices,
    )

    with user_errors():
        count = options.devices or started_devices()
    if lacks_processes(count):
        _start_processes(count, options.arguments)
    with contextlib.ExitStack() as stack:
        with user_errors():
            stack.enter_context(devices(count))
        if process()[0]:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        return _run(options)


def _start_processes(count: int, arguments: Sequence[str]) -> NoReturn:
    """Becomes torchrun, which starts this command in `count` processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone"]
    launcher += ["--nproc-per-node", str(count), "-m", "kerassl", *arguments]
    sys.stdout.flush()
    command = [sys.executable, *launcher]
    variables = child_variables()
    # After Ctrl-C it would kill them within 30 seconds, before they have taken
    # the steps up to the next vote and saved.
    variables.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    os.execve(sys.executable, command, variables)


def _run(options: argparse.Namespace) -> int:
    from kerassl import runs
    from kerassl.cli.progress import progress
    from kerassl.cli.signals import stop_on_signals
    from kerassl.distributed import failures, process

    with user_errors():
        if options.resume:
            training, choice = _resumed(options), None
        else:
            training, choice = _new(options)
        _settle(options, training)
        callbacks = _callbacks(options, training)
    _describe(training, choice)
    _note_colors(training)
    _check_preset(training)
    try:
        if training.finished:
            training.train()  # Completes the files, if it was killed then.
            print(
                "This run is finished. --epochs trains it for longer. Evaluate "
                "it with: kerassl evaluate ..."
            )
            return 0
        with progress(training) as callback, stop_on_signals(training) as got:
            training.train(
                [*callbacks, callback],
                keep=options.keep,
                checkpoint_every=options.checkpoint_every,
            )
    except (runs.DivergedError, runs.SaveError) as error:
        print_error(error)
        return 1
    except BrokenPipeError:  # Of the output, not of the run's files.
        raise
    except OSError as error:
        if process()[0]:  # The first one tells.
            return 2
        raise UserError(str(error)) from error
    except failures() as error:
        if process()[1] == 1:
            raise
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        print_error(
            f"process {process()[0]} of {process()[1]} failed, or lost another "
            f"that did: {reason}. The last checkpoint is kept. Go on with: "
            f"{_resume_command(training)}"
        )
        return 1
    for callback in callbacks:
        if getattr(callback, "fallen", None):
            # Its warning has told.
            return 1
    if training.finished:
        path = one_line(str(encoder_file(training.folder)))
        print(f"Finished. The encoder is {path}")
        return 0
    print(
        f"Stopped and saved at step {training.steps_done:,} of "
        f"{training.total_steps:,}. Go on with:\n"
        f"  {one_line(_resume_command(training))}"
    )
    # Another process may be the one that was asked to stop.
    return 128 + (got[0] if got else signal.SIGTERM)


def _resume_command(run: "Run") -> str:
    from kerassl.distributed import device_count

    words = ["kerassl", "pretrain", "--resume", "--output", str(run.folder)]
    if (count := device_count()) > 1:
        words += ["--devices", str(count)]
    return shlex.join(words)


def _new(options: argparse.Namespace) -> tuple["Run", str | None]:
    """Returns a run, and in words how its recipe was chosen, if it was."""
    from kerassl import recipes, runs

    changes = recipe_changes(options)
    if options.method == AUTO:
        chosen = choose_method(options, changes)
        print_choice(options, chosen)
        options.method = chosen.method
        options.weights = chosen.weights or options.weights
        changes = chosen.changes | changes
    choice = None
    if options.recipe is None:
        recipe, choice = choose_recipe(
            options.method,
            options.data,
            weights=options.weights,
            data_dir=options.data_dir,
            image_size=changes.get("image_size"),
        )
    else:
        recipe = recipes.get(options.method, options.recipe)
    if options.weights is not None:
        recipe = recipes.going_on(recipe)
    recipe = recipe.change(**changes)
    run = runs.start(
        options.output,
        recipe,
        options.data,
        weights=options.weights,
        limit=options.limit,
        data_dir=options.data_dir,
        max_unreadable=options.max_unreadable,
        value_range=options.value_range,
        overwrite=options.force,
    )
    return run, choice


def _resumed(options: argparse.Namespace) -> "Run":
    from kerassl import runs

    return runs.resume(
        options.output,
        epochs=recipe_changes(options).get("epochs"),
        data_dir=options.data_dir,
    )


def _settle(options: argparse.Namespace, run: "Run") -> None:
    """Records how to train, which holds until other options are given."""
    defaults: dict[str, Any] = {
        "monitor": [],
        "guard": "neighbors" if "weights" in run.settings else "off",
        "keep": 0,
        "checkpoint_every": 1,
        "tensorboard": False,
    }
    for name, default in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, run.settings.get(name, default))
        run.settings[name] = getattr(options, name)


def _callbacks(options: argparse.Namespace, run: "Run") -> list:
    from kerassl import runs
    from kerassl.distributed import process

    is_first = process()[0] == 0  # It tells, and writes.
    note = print_note if is_first else lambda words: None
    callbacks = runs.monitors(run, options.monitor, note=note)
    if options.guard != "off":
        callbacks.append(runs.guard(run, labels=options.guard == "knn"))
    if options.tensorboard and is_first:
        with user_errors(ImportError):
            callbacks.append(runs.tensorboard(run))
    return callbacks


def _check_preset(run: "Run") -> None:
    """Says before training if `presets push` will refuse the encoder."""
    from kerassl.distributed import process
    from kerassl.presets import PresetError, check_encoder

    if process()[0]:
        return  # The first of several processes says it.
    try:
        check_encoder(run.model)
    except PresetError as error:
        print_note(f"warning: {error}")


def _note_colors(run: "Run") -> None:
    """Says what the views leave out in images without colors."""
    from kerassl.distributed import process

    *_, channels = run.data.image_shape
    needs_color = getattr(run.model.augmenter, "needs_color", False)
    if needs_color and channels not in (1, 3) and not process()[0]:
        print_note(
            f"in images of {channels} channels, the views change no saturation "
            "and hue, and brightness and contrast of all channels alike. "
            "--set views.preset=any_channels has operations for each channel."
        )


def _describe(run: "Run", choice: str | None) -> None:
    from kerassl.distributed import device_count
    from kerassl.environment import environment

    recipe, settings = run.recipe, run.settings
    count, size = len(run.data.images), "x".join(map(str, run.data.image_shape))
    parameters = run.model.encoder.count_params()
    values = run.data.value_range
    rows = {
        "method": f"{recipe.method}, recipe {recipe.name} {recipe.hash[:12]}",
        "chosen": choice,
        "encoder": f"{run.model.encoder.name}, {parameters:,} parameters",
        "from": settings.get("weights", {}).get("source"),
        "images": f"{count:,} of {settings['data']}, {size}",
        "range": values and f"{values} becomes 0 to 255",
        "steps": f"{run.total_steps:,} = {recipe.epochs} epochs x "
        f"{run.steps_per_epoch:,}, batch {recipe.batch_size}",
        "backend": f"{settings['backend']} on {environment()['device']}"
        + (f", {devices} devices" if (devices := device_count()) > 1 else ""),
        "dtypes": run.model.dtype_policy.name,
        "output": str(run.folder),
    }
    if run.steps_done:
        rows["resumed"] = f"at step {run.steps_done:,}"
    for name, value in rows.items():
        if value is not None:
            print(f"{name:8} {one_line(str(value))}", flush=True)
