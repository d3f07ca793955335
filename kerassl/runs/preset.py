"""Saves the encoder of a run as a preset."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerassl import encoders, presets
from kerassl.environment import environment
from kerassl.models import load_keras_file
from kerassl.names import BEST
from kerassl.presets.load import KERASHUB
from kerassl.presets.privacy import (
    is_shared,
    public_names,
    public_scores,
    public_spec,
    starts,
)
from kerassl.recipes import Recipe
from kerassl.recipes.command import pretrain_command
from kerassl.run_folder import (
    ENCODER,
    HISTORY,
    encoder_file,
    read_history,
    read_scores,
    read_settings,
)
from kerassl.runs.weights import (
    earlier_datasets,
    earlier_labels,
    is_public,
    public_source,
    public_weights,
)


def save_preset(
    run: str | Path,
    folder: str | Path,
    *,
    datasets: str | Sequence[str] = (),
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    training: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Path:
    """Saves the encoder of a run as a preset.

    The preset records the recipe, the data, the time of training, the command
    and the scores that `kerassl evaluate` left in the run's folder. It contains
    no path of your machine: images from a path, a URL or `hf:OWNER/NAME` are
    called "own images", and weights and a teacher of your own WEIGHTS and
    TEACHER.

    Args:
        run: path of the run's folder, in which at least one epoch is finished.
            Nothing in it is changed. If the run has a best encoder, it is
            saved instead of the last.
        folder: path of the preset to create.
        datasets: names of the run's data sets, or the name of one, by default
            as in the run. Those of the weights that it went on from, and of
            its teacher, come before them.
        scores: dict of protocol to results. By default those in the run's
            folder.
        training: dict of plain values to add to what the run knows.
        **arguments: further arguments of `kerassl.save_preset`, such as
            `name`, `license`, `description` and `overwrite`.

    Returns:
        The folder's path.

    Raises:
        FileExistsError: as `kerassl.save_preset`.
        FileNotFoundError: if the folder holds no run, or no epoch is finished.
        PresetError: as `kerassl.save_preset`.
        ValueError: if a file of the run is broken.

    Example:
    ```python
    kerassl.runs.save_preset("runs/a", "presets/simclr", license="apache-2.0")
    encoder = kerassl.load_encoder("presets/simclr")
    ```
    """
    run = Path(run)
    settings = read_settings(run)
    if not (run / ENCODER).is_file():
        raise FileNotFoundError(
            f"{run} holds no {ENCODER} yet: no epoch is finished."
        )
    encoder = encoders.accepted(load_keras_file(encoder_file(run)))
    recipe = Recipe.from_dict(settings["recipe"])
    data, found = str(settings["data"]), read_scores(run)
    names = public_names(
        [data, *(str(s["data"]) for s in found.values() if "data" in s)]
    )
    own = [datasets] if isinstance(datasets, str) else list(datasets)
    if own and not is_shared(data):
        names[data] = own[0]
    recipe = _public_recipe(recipe, settings)
    known = _training(
        run,
        settings | {"data": public_spec(data), "recipe": recipe.to_dict()},
    )
    own = own or [names[data]]
    return presets.save_preset(
        encoder,
        folder,
        recipe=recipe,
        datasets=list(dict.fromkeys([*earlier_datasets(settings), *own])),
        scores=public_scores(found, names) if scores is None else scores,
        training=known | dict(training or {}),
        value_range=settings.get("value_range"),
        versions=settings.get("versions", environment()["versions"]),
        **arguments,
    )


def _public_recipe(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """Returns a recipe without local paths of encoders."""
    if "encoder" in starts(recipe.to_dict()) and not is_public(recipe.encoder):
        recipe = recipe.replace(encoder=f"{KERASHUB}PATH")
    teacher = recipe.method_args.get("teacher")
    # Older runs don't record it.
    known = settings.get("teacher", {"source": teacher})
    if teacher is not None and public_source(known) is None:
        recipe = recipe.change(method_args={"teacher": "TEACHER"})
    return recipe


def _training(run: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the starts, command, device, epochs and so on of a run."""
    training: dict[str, Any] = {"backend": settings["backend"]}
    if weights := settings.get("weights"):
        training["went on from"] = public_weights(weights)
        source = public_source(weights) or "WEIGHTS"
        settings = settings | {"weights": weights | {"source": source}}
    if teacher := settings.get("teacher"):
        training["teacher"] = public_weights(teacher)
    training |= earlier_labels(settings)
    if (run / BEST).is_file():
        training["encoder"] = f"the best by the run's guard, {BEST}"
    if command := pretrain_command(settings):
        training["command"] = command
    if "device" in settings:
        training["device"] = settings["device"]
    if (run / HISTORY).is_file():
        rows = read_history(run)
        training["epochs"] = len(rows)
        training["seconds"] = round(
            sum(row.get("seconds", 0.0) for row in rows), 2
        )
    return training
