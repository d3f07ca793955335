"""The sections of a report."""

import html
import json
import shlex
from collections.abc import Iterable
from typing import Any

import numpy as np

from kerassl import evaluation, methods
from kerassl.evaluation.health import (
    feature_problems,
    loss_problem,
    score_problems,
)
from kerassl.names import BEST
from kerassl.recipes.command import pretrain_command
from kerassl.report.html import (
    code,
    duration,
    header,
    percent,
    picture,
    section,
    warnings,
)
from kerassl.report.subject import Subject
from kerassl.run_folder import CHECKPOINT
from kerassl.runs.comparison import statements
from kerassl.runs.protocols import score_rows
from kerassl.visualization.attention import attention_maps, vit_of
from kerassl.visualization.correlation import cross_correlation
from kerassl.visualization.curves import learning_curves, read_curves
from kerassl.visualization.features import features_of
from kerassl.visualization.maps import draw_map
from kerassl.visualization.neighbors import draw_neighbors
from kerassl.visualization.pictures import picture_of, views

# Rows of the picture of neighbors, rows of the other pictures, and neighbors.
QUERIES, ROWS, NEIGHBORS = 8, 4, 5


def sections(run: Subject) -> Iterable[str]:
    """Yields the page's sections as HTML.

    Args:
        run: `Subject`.
    """
    features = features_of(run.encoder, run.data, run.queries)
    rank = evaluation.effective_rank(features)
    spread = evaluation.feature_spread(features)
    problems = [
        *_run_problems(run),
        *feature_problems(rank, spread, features.shape).values(),
        *score_problems(run.scores),
    ]
    yield (
        warnings(problems)
        if problems
        else (
            '<p class="fine">Nothing looks wrong: see the scores and the '
            "pictures for how good it is.</p>"
        )
    )
    yield _what_ran(run)
    yield _scores(
        run,
        f"Without labels, on {len(features):,} images: the features use "
        f"{rank:.1f} of {features.shape[1]} dimensions (effective rank), and "
        f"their spread is {spread:.2f}, where 0 means that all are the same "
        "and 1 that they fill the sphere.",
    )
    yield _curves(run)
    bank_features = features_of(run.encoder, run.data, run.bank)
    yield _neighbors(run, features, bank_features)
    yield _map(run, features)
    if vit_of(run.encoder) is not None:
        yield section(
            "Attention",
            "Where the class token of the last block looks: the brighter, "
            "the more.",
            picture(attention_maps(run.encoder, _few(run)), "Attention maps"),
        )
    yield from of_model(run)


def _few(run: Subject) -> np.ndarray:
    return np.asarray(_chosen(run)[:])


def _chosen(run: Subject) -> Any:
    """Returns some images; photos aren't decoded."""
    return run.queries.select(run.spread(ROWS)).images


def _run_problems(run: Subject) -> Iterable[str]:
    if run.settings.get("recipe_hash") not in (None, run.recipe.hash):
        yield "The recipe in the folder was changed since the run began."
    epochs, all_epochs = len(run.history), run.recipe.epochs
    if epochs < all_epochs:
        yield (
            f"The run isn't finished: {epochs} of {all_epochs} epochs are "
            "done. This page is about the encoder so far."
        )
    if "loss" in (run.history or [{}])[-1] and run.model is not None:
        problem = loss_problem(
            run.model, run.history[-1]["loss"], run.recipe.batch_size
        )
        if problem:
            yield f"{problem} {run.model.collapse_advice}"


def _what_ran(run: Subject) -> str:
    recipe, settings = run.recipe, run.settings
    shape = " x ".join(map(str, run.encoder.input_shape[1:]))
    limit = settings.get("limit")
    seconds = sum(row.get("seconds", 0.0) for row in run.history)
    rows = {
        "method": recipe.method,
        "recipe": f"{recipe.name}, hash {recipe.hash}",
        "went on from": settings.get("weights", {}).get("source"),
        "encoder": f"{run.encoder.name}, images {shape}, "
        f"{run.encoder.output_shape[-1]} features, "
        f"{run.encoder.count_params():,} parameters"
        + f", {BEST}, by the guard"
        * (run.folder / BEST).is_file(),
        "data": settings["data"]
        + (f", {limit:,} images at most" if limit else "")
        + "".join(f"; {note}" for note in settings.get("data_notes", ())),
        "epochs": f"{len(run.history)} of {recipe.epochs}, in batches of "
        f"{recipe.batch_size}",
        "time": duration(seconds),
        "seed": recipe.seed,
        "backend": f"{settings['backend']} on {settings.get('device')}",
        "versions": ", ".join(
            f"{name} {version}"
            for name, version in settings.get("versions", {}).items()
        ),
    }
    cells = {
        name: html.escape(str(text))
        for name, text in rows.items()
        if text is not None
    }
    command = pretrain_command(settings, run.folder)
    if command:
        cells["command"] = code(command)
    if len(run.history) < recipe.epochs:
        output = shlex.quote(str(run.folder))
        cells["resume with"] = code(
            f"kerassl pretrain --resume --output {output}"
        )
    table = "\n".join(
        f"<tr>{header(name)}<td>{cell}</td></tr>"
        for name, cell in cells.items()
    )
    recipe_text = html.escape(json.dumps(settings["recipe"], indent=2))
    return section(
        "What ran",
        "",
        f"<table><tbody>\n{table}\n</tbody></table>"
        "<details><summary>The whole recipe</summary>"
        f"<pre>{recipe_text}</pre></details>",
    )


def _scores(run: Subject, words: str) -> str:
    if not run.scores:
        command = (
            f"kerassl evaluate {shlex.quote(str(run.folder))} --data "
            f"{shlex.quote(run.data)}"
        )
        return section(
            "Scores",
            words,
            f"<p>Not evaluated yet, run: {code(command)}</p>",
        )
    lines = "\n".join(
        f'<tr>{header(name, settings)}<td class="number">{percent(accuracy)}'
        f'</td><td class="number">{percent(floor)}</td></tr>'
        for name, accuracy, floor, settings in score_rows(run.scores)
    )
    return section(
        "Scores",
        words,
        '<table><thead><tr><th scope="col">protocol</th>'
        '<th scope="col" class="number">accuracy</th>'
        '<th scope="col" class="number">untrained</th></tr></thead>\n'
        f"<tbody>{lines}</tbody></table>"
        + "".join(f"<p>{html.escape(s)}</p>" for s in statements(run.scores)),
    )


def _curves(run: Subject) -> str:
    title = "Learning curves"
    if not run.history:
        return section(title, "No epoch is finished yet.")
    pictures = "\n".join(
        picture(learning_curves(run.history, [name]), name, vector=True)
        for name in read_curves(run.history)
    )
    return section(title, "", f'<div class="curves">\n{pictures}\n</div>')


def _neighbors(
    run: Subject, features: np.ndarray, bank_features: np.ndarray
) -> str:
    rows = run.spread(QUERIES)
    figure = draw_neighbors(
        run.queries.select(rows),
        features[rows],
        run.bank,
        bank_features,
        min(NEIGHBORS, len(bank_features)),
    )
    words = (
        f"Images of {run.data}, each beside those of {len(bank_features):,} "
        "training images whose features are nearest, with the cosine "
        "similarity."
    )
    if run.queries.labels is not None:
        words += " Green frames mark the same class, red ones another class."
    return section(
        "Nearest neighbors", words + run.note, picture(figure, "Neighbors")
    )


def _map(run: Subject, features: np.ndarray) -> str:
    try:
        figure = draw_map(run.queries, features, "tsne")
    except ValueError as error:  # Too few images.
        return section("Map", str(error))
    return section(
        "Map",
        f"{len(features):,} images, laid out by t-SNE so that similar "
        "features are close together. Labels set only the colors.",
        picture(figure, "Map of the features"),
    )


def of_model(run: Subject) -> Iterable[str]:
    """Yields the sections that need the training model.

    Args:
        run: `Subject`.
    """
    if run.model is None:
        yield section(
            "Views",
            "The pictures of the views and of the task need "
            f"{CHECKPOINT}, which was deleted.",
        )
        return
    yield section(
        "Views",
        "Images, and the views of them that the network gets.",
        picture(views(run.model, _chosen(run)), "Views"),
    )
    draw = picture_of(run.model)
    if draw is not views:
        words = "The task that the model learns from."
        if not hasattr(run.model, "reconstruct"):
            words += " Green is right and red is wrong."
        yield section(
            "What the model guesses",
            words,
            picture(draw(run.model, _few(run), 0), "Pretext task"),
        )
    if isinstance(run.model, methods.BarlowTwins):
        images = np.asarray(run.queries.images[:])
        yield section(
            "Cross-correlation",
            "It should be 1 on the diagonal and 0 elsewhere; with "
            f"{len(images):,} images independent dimensions correlate by "
            f"about {len(images) ** -0.5:.2f}.",
            picture(
                cross_correlation(run.model, images),
                "Cross-correlation matrix",
            ),
        )
