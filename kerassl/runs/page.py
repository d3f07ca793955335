"""One page about a run: what it did, how it went, and what it has learned."""

import base64
import datetime
import html
import importlib.util
import io
import json
import shlex
import string
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerassl import data as kerassl_data
from kerassl import evaluation, methods
from kerassl.data.errors import SplitError
from kerassl.evaluation.health import (
    feature_problems,
    loss_problem,
    score_problems,
)
from kerassl.presets import load_encoder
from kerassl.recipes import Recipe
from kerassl.recipes.command import pretrain_command
from kerassl.run_folder import (
    CHECKPOINT,
    REPORT,
    read_rows,
    read_scores,
    read_settings,
)
from kerassl.run_lock import InUseError
from kerassl.runs.checkpoint import load_checkpoint
from kerassl.runs.files import check_writable, replacing
from kerassl.runs.protocols import score_rows
from kerassl.visualization.attention import attention_maps, vit_of
from kerassl.visualization.curves import (
    learning_curves,
    read_curves,
)
from kerassl.visualization.features import (
    MAPS,
    check_fit,
    cross_correlation,
    draw_map,
    draw_neighbors,
    features_of,
)
from kerassl.visualization.pictures import load_matplotlib, picture_of, views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "page.html"
# Training images to search, for each test image on the map.
BANK = 4
# Rows of the pictures of neighbors, and of those with several views.
QUERIES, ROWS, NEIGHBOURS = 8, 4, 5
# Pixels an inch, in the file and on the page.
DPI, SHOWN_DPI = 144, 96
# On a narrow screen a picture becomes no smaller than this share of its width;
# from there on it scrolls.
SMALLEST = 0.6


def report(
    folder: str | Path,
    data: str | None = None,
    images: int = 500,
    output: str | Path | None = None,
    data_dir: str | None = None,
    max_unreadable: float | None = None,
) -> Path:
    """Writes a page about a run, which needs no other file and no network.

    It says what ran, what is wrong with it, the scores that `kerassl evaluate`
    has left in the run's folder, and shows learning curves, neighbors, a map
    of the features (t-SNE if scikit-learn is installed, else PCA), the views
    and what else there is to see of the method and the encoder.

    Args:
        folder: of a run.
        data: str, as in `kerassl.data.load`, by default the run's own. Its
            test images are shown; or, if it has none, training images.
        images: int > 0, the number of test images on the map. Neighbors are
            searched in four times as many training images.
        output: the file to write, by default `report.html` in the folder.
        data_dir: as in `kerassl.data.load`, by default as in the run.
        max_unreadable: likewise.

    Returns:
        The path of the page.

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError: if there is no run, or its data or the folder of
            `output` are missing.
        PermissionError: if the page can't be written there.
        ValueError: if a file of the run is broken, or the images don't fit the
            encoder.

    Example:
    ```python
    kerassl.runs.report("runs/a")      # runs/a/report.html
    ```
    """
    return Report(
        folder, data, images, output, data_dir, max_unreadable
    ).write()


class Report:
    """What a page is made of, all read and checked.

    Args:
        folder: as in `report`.
        data: likewise.
        images: likewise.
        output: likewise.
        data_dir: likewise.
        max_unreadable: likewise.

    Raises:
        ImportError: as in `report`.
        FileNotFoundError: likewise.
        ValueError: likewise.
    """

    def __init__(
        self,
        folder: str | Path,
        data: str | None = None,
        images: int = 500,
        output: str | Path | None = None,
        data_dir: str | None = None,
        max_unreadable: float | None = None,
    ):
        load_matplotlib()  # Its lack shows now, and not after the features.
        self.folder = Path(folder)
        self.path = Path(output or self.folder / REPORT)
        self.settings = read_settings(folder)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}.")
        check_writable(self.path.parent)
        self.recipe = Recipe.from_dict(self.settings["recipe"])
        self.rows = read_rows(folder)
        self.scores = read_scores(folder)
        self.encoder = load_encoder(folder)
        self.data = self.settings["data"] if data is None else data
        if data_dir is None:
            data_dir = self.settings.get("data_dir")
        if max_unreadable is None:
            max_unreadable = self.settings["max_unreadable"]
        self._load_images(images, data_dir, max_unreadable)
        checkpoint = self.folder / CHECKPOINT
        # Some are removed to save space; the encoder is enough for the most.
        self.model = (
            load_checkpoint(checkpoint)[0] if checkpoint.exists() else None
        )

    def _load_images(
        self, count: int, data_dir: str | None, max_unreadable: float
    ) -> None:
        height, width, _ = self.encoder.input_shape[1:]
        size = None if None in (height, width) else (height, width)

        def load(split: str, limit: int) -> kerassl_data.ImageData:
            return kerassl_data.load(
                self.data,
                split,
                image_size=size,
                limit=limit,
                data_dir=data_dir,
                max_unreadable=max_unreadable,
            )

        self.note = ""
        try:
            self.queries = load("test", count)
            self.bank = load("train", BANK * count)
        except SplitError as error:
            self.note = f" All are training images: {error}"
            train = load("train", (1 + BANK) * count)
            chosen = np.arange(len(train.images)) % (1 + BANK) == 0
            self.queries = train.select(np.flatnonzero(chosen))
            self.bank = train.select(np.flatnonzero(~chosen))
        check_fit(self.encoder, self.data, self.queries)
        check_fit(self.encoder, self.data, self.bank)

    def write(self) -> Path:
        """Makes the pictures and writes the page; returns its path.

        Raises:
            OSError: if the page can't be written, or another run has begun in
                the folder.
        """
        template = resources.files(__package__) / TEMPLATE
        recipe = self.recipe
        page = string.Template(template.read_text(encoding="utf-8")).substitute(
            title=html.escape(f"{recipe.method} on {self.settings['data']}"),
            subtitle=html.escape(
                f"A run of kerassl in {self.folder}. Report of "
                f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
            ),
            body="\n".join(self._sections()),
        )
        if read_settings(self.folder) != self.settings:
            raise InUseError(f"Another run has begun in {self.folder}.")
        with replacing(self.path) as temporary:
            # A file's name may hold what isn't a character.
            temporary.write_text(
                page, encoding="utf-8", errors="xmlcharrefreplace"
            )
        return self.path

    def _sections(self) -> Iterable[str]:
        features = features_of(self.encoder, self.data, self.queries)
        warnings = [
            *self._changes(),
            *self._run_problems(),
            *feature_problems(features).values(),
            *score_problems(self.scores),
        ]
        yield (
            _list(warnings)
            if warnings
            else (
                '<p class="fine">Nothing looks wrong: see the scores and the '
                "pictures for how good it is.</p>"
            )
        )
        yield self._what_ran()
        yield self._scores(features)
        yield self._curves()
        yield self._features(features)
        if vit_of(self.encoder) is not None:
            yield _section(
                "Attention",
                "Where the class token of the last block looks: the brighter, "
                "the more.",
                _picture(
                    attention_maps(self.encoder, self._few), "Attention maps"
                ),
            )
        yield from self._of_model()

    @property
    def _few(self) -> np.ndarray:
        return np.asarray(self.queries.select(self._spread(ROWS)).images[:])

    def _spread(self, count: int) -> np.ndarray:
        """Returns which queries to show: the first would be of one class."""
        last = len(self.queries.images) - 1
        return np.unique(np.linspace(0, last, count).astype(int))

    def _changes(self) -> list[str]:
        if self.settings.get("recipe_hash") in (None, self.recipe.hash):
            return []
        return ["The recipe in the folder was changed since the run began."]

    def _run_problems(self) -> Iterable[str]:
        epochs, all_epochs = len(self.rows), self.recipe.epochs
        if epochs < all_epochs:
            yield (
                f"The run isn't finished: {epochs} of {all_epochs} epochs are "
                "done. What follows is of the encoder so far."
            )
        if "loss" in (self.rows or [{}])[-1] and self.model is not None:
            problem = loss_problem(
                self.model, self.rows[-1]["loss"], self.recipe.batch_size
            )
            if problem:
                yield f"{problem} {self.model.collapse_advice}"

    # === Parts of the page ===

    def _what_ran(self) -> str:
        recipe, settings = self.recipe, self.settings
        shape = " x ".join(map(str, self.encoder.input_shape[1:]))
        limit = settings.get("limit")
        seconds = sum(row.get("seconds", 0.0) for row in self.rows)
        command = pretrain_command(settings, self.folder)
        output = shlex.quote(str(self.folder))
        rows = {
            "method": recipe.method,
            "recipe": f"{recipe.name}, hash {recipe.hash}",
            "encoder": f"{recipe.encoder}, images {shape}, "
            f"{self.encoder.output_shape[-1]} features, "
            f"{self.encoder.count_params():,} parameters",
            "data": settings["data"]
            + (f", {limit:,} images at most" if limit else ""),
            "epochs": f"{len(self.rows)} of {recipe.epochs}, in batches of "
            f"{recipe.batch_size}",
            "time": duration(seconds),
            "seed": recipe.seed,
            "backend": f"{settings['backend']} on {settings.get('device')}",
            "versions": ", ".join(
                f"{name} {version}"
                for name, version in settings.get("versions", {}).items()
            ),
        }
        cells = {name: html.escape(str(text)) for name, text in rows.items()}
        if command:
            cells["command"] = _code(command)
        if len(self.rows) < recipe.epochs:
            cells["go on with"] = _code(
                f"kerassl pretrain --resume --output {output}"
            )
        table = "\n".join(
            f'<tr><th scope="row">{name}</th><td>{cell}</td></tr>'
            for name, cell in cells.items()
        )
        recipe_text = html.escape(json.dumps(settings["recipe"], indent=2))
        return _section(
            "What ran",
            "",
            f"<table><tbody>\n{table}\n</tbody></table>"
            "<details><summary>All of the recipe</summary>"
            f"<pre>{recipe_text}</pre></details>",
        )

    def _scores(self, features: np.ndarray) -> str:
        rank = evaluation.effective_rank(features)
        spread = evaluation.feature_spread(features)
        words = (
            f"Of {len(features):,} images, without labels: the features use "
            f"{rank:.1f} of {features.shape[1]} dimensions (effective rank), "
            f"and their spread is {spread:.2f}, where 0 is all the same and 1 "
            "all over the sphere."
        )
        if not self.scores:
            command = (
                f"kerassl evaluate {shlex.quote(str(self.folder))} --data "
                f"{shlex.quote(self.data)}"
            )
            return _section(
                "Scores",
                words,
                f"<p>Not evaluated yet, run: {_code(command)}</p>",
            )
        lines = "\n".join(
            f'<tr><th scope="row">{html.escape(name)}'
            f"<small>{html.escape(settings)}</small></th>"
            f'<td class="number">{_share(accuracy)}</td>'
            f'<td class="number">{_share(floor)}</td></tr>'
            for name, accuracy, floor, settings in score_rows(self.scores)
        )
        return _section(
            "Scores",
            words,
            '<table><thead><tr><th scope="col">protocol</th>'
            '<th scope="col" class="number">accuracy</th>'
            '<th scope="col" class="number">untrained</th></tr></thead>\n'
            f"<tbody>{lines}</tbody></table>",
        )

    def _curves(self) -> str:
        title = "Learning curves"
        if not self.rows:
            return _section(title, "No epoch is finished yet.")
        pictures = "\n".join(
            _picture(learning_curves(self.folder, [name]), name, vector=True)
            for name in read_curves(self.folder)
        )
        return _section(title, "", f'<div class="curves">\n{pictures}\n</div>')

    def _features(self, features: np.ndarray) -> str:
        bank_features = features_of(self.encoder, self.data, self.bank)
        rows = self._spread(QUERIES)
        count = min(NEIGHBOURS, len(bank_features))
        near = draw_neighbors(
            self.queries.select(rows),
            features[rows],
            self.bank,
            bank_features,
            count,
        )
        words = (
            f"Images of {self.data}, and those of {len(bank_features):,} "
            "training images whose features are nearest, with the cosine "
            "similarity."
        )
        if self.queries.labels is not None:
            words += " A green frame is the same class, a red one another."
        words += self.note
        parts = [
            _section("Nearest neighbors", words, _picture(near, "Neighbors"))
        ]
        kind = "tsne" if importlib.util.find_spec("sklearn") else "pca"
        try:
            figure = draw_map(self.queries, features, kind)
        except ValueError as error:  # Too few images.
            parts.append(_section("Map", str(error)))
        else:
            parts.append(
                _section(
                    "Map",
                    f"{len(features):,} images, laid out by {MAPS[kind]} so "
                    "that those with like features are close together. Labels "
                    "give the colors alone.",
                    _picture(figure, "Map of the features"),
                )
            )
        return "\n".join(parts)

    def _of_model(self) -> Iterable[str]:
        """Yields the parts that need the method, and not the encoder alone."""
        if self.model is None:
            yield _section(
                "Views",
                f"There is no {CHECKPOINT} any more, which the pictures of "
                "views and of the task are made of.",
            )
            return
        yield _section(
            "Views",
            "What the method makes of an image, as the network gets it.",
            _picture(views(self.model, self._few), "Views"),
        )
        draw = picture_of(self.model)
        if draw is not views:
            words = "The task that it learns from."
            if not hasattr(self.model, "reconstruct"):
                words += " Green is right and red is wrong."
            yield _section(
                "What the model guesses",
                words,
                _picture(draw(self.model, self._few, 0), "Pretext task"),
            )
        if isinstance(self.model, methods.BarlowTwins):
            images = np.asarray(self.queries.images[:])
            yield _section(
                "Cross-correlation",
                "It should be 1 on the diagonal and 0 elsewhere; with "
                f"{len(images):,} images independent dimensions correlate by "
                f"about {len(images) ** -0.5:.2f}.",
                _picture(
                    cross_correlation(self.model, images),
                    "Cross-correlation matrix",
                ),
            )


# === What the page says ===


def duration(seconds: float) -> str:
    """Returns a time in words, such as `"2 h 5 min"`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


# === HTML ===


def _section(title: str, words: str = "", content: str = "") -> str:
    """Returns a part of the page, of text and of HTML."""
    text = f"<p>{html.escape(words)}</p>\n" if words else ""
    heading = f"<h2>{html.escape(title)}</h2>"
    return f"<section>\n{heading}\n{text}{content}\n</section>"


def _list(lines: list[str]) -> str:
    items = "\n".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="warnings">\n{items}\n</ul>'


def _code(text: str) -> str:
    # Words, so that no line breaks after a hyphen.
    words = [f"<span>{html.escape(word)}</span>" for word in text.split(" ")]
    return f"<code>{' '.join(words)}</code>"


def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, (int, float)) else "–"


def _picture(figure: "Figure", words: str, vector: bool = False) -> str:
    """Returns a figure as an image that is part of the page.

    Args:
        figure: `matplotlib.figure.Figure`.
        words: str, what it shows, for those who can't see it.
        vector: bool. Whether it is drawn as SVG, and not as pixels.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg" if vector else "webp", dpi=DPI)
    data = base64.b64encode(file.getvalue()).decode()
    kind = "svg+xml" if vector else "webp"
    width, height = (round(x * SHOWN_DPI) for x in figure.get_size_inches())
    return (
        f'<figure><img alt="{html.escape(words)}" width="{width}" '
        f'height="{height}" style="min-width: {SMALLEST * width:.0f}px" '
        f'src="data:image/{kind};base64,{data}"></figure>'
    )
