"""Writes the report of a run."""

import datetime
import html
import string
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from kerassl.files import replacing
from kerassl.report.sections import sections
from kerassl.report.subject import Subject
from kerassl.run_folder import REPORT, read_settings
from kerassl.run_lock import InUseError
from kerassl.runs.files import check_writable
from kerassl.visualization.figures import (
    load_matplotlib,
    shown_channels,
    visible,
)

TEMPLATE = "page.html"


def write(
    folder: str | Path,
    data: str | None = None,
    images: int = 500,
    output: str | Path | None = None,
    data_dir: str | None = None,
    max_unreadable: float | None = None,
    channels: Sequence[int] | None = None,
) -> Path:
    """Writes a self-contained HTML page about a run.

    The page says what ran and what looks wrong. It shows the scores that
    `kerassl evaluate` left in the run's folder, learning curves, nearest
    neighbors, a map of the features (by t-SNE), the views, and what else the
    method and the encoder have to show. It needs no other file and no network.

    Args:
        folder: path of a run's folder.
        data: str, as in `kerassl.data.load`; by default the run's data. Shows
            its test images, or training images if it has no test split.
        images: int > 0, the number of test images on the map. Neighbors are
            searched in four times as many training images.
        output: path of the file to write; by default `report.html` in the
            folder.
        data_dir: as in `kerassl.data.load`; by default the run's.
        max_unreadable: as in `kerassl.data.load`; by default the run's.
        channels: of images with more than three, the one or the three to show,
            counted from 0. By default the first three, as red, green and blue.

    Returns:
        The path of the page.

    Raises:
        ImportError: without matplotlib.
        FileNotFoundError: if there is no run, or its data or the folder of
            `output` are missing.
        FileExistsError: if `output` is a folder.
        PermissionError: if the page can't be written there.
        ValueError: if a file of the run is broken, or the images don't fit the
            encoder.

    Example:
    ```python
    kerassl.report.write("runs/a")  # writes runs/a/report.html
    ```
    """
    return Report(
        folder, data, images, output, data_dir, max_unreadable, channels
    ).write()


class Report:
    """A report that is ready to be written: everything is read and checked.

    The arguments and errors are those of `write`.
    """

    def __init__(
        self,
        folder: str | Path,
        data: str | None = None,
        images: int = 500,
        output: str | Path | None = None,
        data_dir: str | None = None,
        max_unreadable: float | None = None,
        channels: Sequence[int] | None = None,
    ):
        load_matplotlib()  # Fails before the features are computed.
        self.path = Path(folder) / REPORT if output is None else Path(output)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {self.path.parent}.")
        if self.path.is_dir():
            raise FileExistsError(
                f"{self.path} is a folder. Give the path of a file."
            )
        check_writable(self.path.parent)
        self.run = Subject(folder, data, images, data_dir, max_unreadable)
        self.channels = channels
        with shown_channels(channels):
            visible(self.run.queries.images[:1])

    def write(self) -> Path:
        """Draws the pictures, writes the page and returns its path.

        Raises:
            OSError: if the page can't be written, or another run has begun in
                the folder.
        """
        run = self.run
        with shown_channels(self.channels):
            body = "\n".join(sections(run))
        template = resources.files(__package__) / TEMPLATE
        page = string.Template(template.read_text(encoding="utf-8")).substitute(
            title=html.escape(f"{run.recipe.method} on {run.settings['data']}"),
            subtitle=html.escape(
                f"A run of kerassl in {run.folder}. Report of "
                f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
            ),
            body=body,
        )
        if read_settings(run.folder) != run.settings:
            raise InUseError(f"Another run has begun in {run.folder}.")
        with replacing(self.path) as temporary:
            # File names may hold bytes that aren't valid text.
            temporary.write_text(
                page, encoding="utf-8", errors="xmlcharrefreplace"
            )
        return self.path
