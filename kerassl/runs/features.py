"""Writes the features of many images to a file."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from kerassl import encoders
from kerassl.data import ImageBatches, ImageData
from kerassl.environment import environment
from kerassl.feature_files import check_feature_file
from kerassl.files import replacing, write_text
from kerassl.names import MAX_UNREADABLE
from kerassl.reading import (
    PLAIN_DICT,
    Form,
    check_fields,
    integer,
    load_json,
    mapping,
)
from kerassl.run_lock import check_free, locked
from kerassl.runs.files import folder_at, remove_partial
from kerassl.runs.subject import (
    add_encoder,
    add_images,
    load_images,
    open_encoder,
)
from kerassl.value_range import Stated

JOURNAL, ROWS = "journal.json", "features.npy"
FORMS: dict[str, Form] = {
    "settings": PLAIN_DICT,
    "done": integer(1),
    "replaced": mapping(integer(0)),
}
# Seconds between notes of how many features are written.
EVERY = 5
# Bytes of images, or of their features, that are handled at once.
BLOCK = 2**24


class FeatureFile:
    """A file to which the features of images are written, piece by piece.

    Until it is complete, features are in the folder `.NAME.unfinished` beside
    it, and the memory in use doesn't grow with them. If writing is interrupted,
    an object with the same arguments continues, and the file has the same
    bytes as without the interruption.

    - `.npz` has the arrays `features`, float32 `(N, D)`; `labels`, int64
      `(N,)`, and `class_names`, if there are any; and for folders `paths`.
    - `.parquet` has the columns `paths`, `labels` and `features`, and the class
      names as JSON in the schema's metadata. It needs `pyarrow`.
    - `.npy` has only the features.

    Features of patches are `(N, h, w, D)`; in Parquet, h * w * D numbers a row,
    and `[h, w, D]` as JSON in the schema's metadata, `shape`.

    If an image has become unreadable since it was found, another one replaces
    it, and the row has the path and the label of that one.

    Args:
        source: a run, a preset or another source that `kerassl.load_encoder`
            takes.
        data: str, as in `kerassl.data.load`.
        path: path of the file, whose suffix is its format.
        split: str, as in `kerassl.data.load`.
        layer: str, as in `kerassl.encoders.embed`.
        patches: bool, as in `kerassl.encoders.embed`.
        limit: int or `None`, as in `kerassl.data.load`.
        batch_size: int > 0.
        data_dir: as in `kerassl.data.load`.
        max_unreadable: as in `kerassl.data.load`.
        value_range: as in `kerassl.data.load`; by default that of the images
            that the encoder learned from.
        overwrite: bool. Whether to replace the file if it exists, and what an
            interruption with other arguments has left.

    Attributes:
        done: int, the number of images whose features are written.
        count: int, the number of all images.

    Raises:
        ValueError: if the file has another suffix, it is left unfinished by
            other arguments, or the encoder, the images or the layer are
            refused.
        FileExistsError: if the file exists.
        FileNotFoundError: if the encoder or the data don't exist.
        InUseError: if another process writes the file.

    Example:
    ```python
    kerassl.runs.FeatureFile("runs/a", "folder:photos", "photos.npz").write()
    features = np.load("photos.npz")["features"]
    ```
    """

    def __init__(
        self,
        source: str | Path,
        data: str,
        path: str | Path,
        *,
        split: str = "train",
        layer: str | None = None,
        patches: bool = False,
        limit: int | None = None,
        batch_size: int = 256,
        data_dir: str | None = None,
        max_unreadable: float = MAX_UNREADABLE,
        value_range: Stated = None,
        overwrite: bool = False,
    ):
        self.path = Path(path)
        self.overwrite = overwrite
        check_feature_file(self.path, overwrite)
        self.folder = self.path.with_name(f".{self.path.name}.unfinished")
        check_free(self.folder)
        encoder = open_encoder(source)
        self.model = encoders.features_model(encoder, layer, patches)
        self.data = load_images(
            encoder,
            source,
            data,
            split,
            limit=limit,
            data_dir=data_dir,
            max_unreadable=max_unreadable,
            value_range=value_range,
        )
        self.count = len(self.data.images)
        self.batch_size = batch_size
        pixels = math.prod(self.data.image_shape)
        image = max(pixels * self.data.images.dtype.itemsize, 4 * self.width)
        # Images are read and embedded in blocks of whole batches.
        self.block = batch_size * max(1, BLOCK // (batch_size * image))
        weights, images = hashlib.sha256(), hashlib.sha256()
        add_encoder(weights, encoder)
        add_images(images, self.data)
        self.settings = {
            "encoder": weights.hexdigest(),
            "data": data,
            "split": split,
            "images": [*self.data.images.shape, images.hexdigest()],
            "layer": layer,
            **({"patches": True} if patches else {}),
            **_range(self.data),
            "batch size": batch_size,
            **environment(),
        }
        self.done = 0
        # Rows that belong to another image than their own.
        self.replaced: dict[str, int] = {}
        self._read_journal()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the features: `(N, D)`, or `(N, h, w, D)` of patches."""
        images = (self.count, *self.data.image_shape)
        return tuple(self.model.compute_output_shape(images))

    @property
    def width(self) -> int:
        """The number of features of an image."""
        return math.prod(self.shape[1:])

    def write(
        self, show: Callable[[str, float, float], None] = lambda *what: None
    ) -> Path:
        """Writes the file.

        Args:
            show: called with `"features"`, the number of images done by this
                call, and the number of those that it has to do.

        Returns:
            The path of the file.

        Raises:
            InUseError: if another process writes it.
            OSError: if it can't be written.
        """
        try:
            with folder_at(self.folder), locked(self.folder):
                self._write(show)
        finally:
            # `folder_at` keeps a folder that an interruption has left.
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        return self.path

    def _write(self, show: Callable) -> None:
        # Another process may have changed them before the lock was ours.
        check_feature_file(self.path, self.overwrite)
        self._read_journal()
        remove_partial(self.folder)
        rows, journal = self.folder / ROWS, self.folder / JOURNAL
        if not self.done:
            journal.unlink(missing_ok=True)
        try:
            with open(rows, "r+b" if self.done else "wb") as file:
                self._embed(file, show)
        finally:
            if not self.done:
                rows.unlink(missing_ok=True)
        with replacing(self.path, self.folder) as temporary:
            if self.path.suffix == ".npy":
                os.replace(rows, temporary)
            else:
                self._complete(rows, temporary)
        journal.unlink()
        rows.unlink(missing_ok=True)

    def _embed(self, file: IO[bytes], show: Callable) -> None:
        """Appends the features that are missing."""
        np.lib.format.write_array_header_1_0(
            file,
            {"descr": "<f4", "fortran_order": False, "shape": self.shape},
        )
        # What was written after the last note may be incomplete.
        file.seek(4 * self.done * self.width, os.SEEK_CUR)
        file.truncate()
        if self.done == self.count:
            return
        first = self.done
        # The labels are the numbers of the images that were read.
        blocks = ImageBatches(
            self.data.images,
            np.arange(self.count),
            batch_size=self.block,
            start_step=first // self.block,
        )
        show("features", 0, self.count - first)
        with self._notes(file) as note:
            for i in range(len(blocks)):
                images, read = blocks[i]
                features = encoders.embed(
                    self.model, images, batch_size=self.batch_size
                )
                file.write(features.astype("<f4", copy=False).tobytes())
                for row, image in enumerate(read.tolist(), self.done):
                    if row != image:
                        self.replaced[str(row)] = image
                self.done += len(read)
                note()
                show("features", self.done - first, self.count - first)

    @contextlib.contextmanager
    def _notes(self, file: IO[bytes]) -> Iterator[Callable[[], None]]:
        """Yields a function that notes what is done every few seconds."""
        last = time.monotonic()

        def note(every: float = EVERY) -> None:
            nonlocal last
            if time.monotonic() - last < every or not self.done:
                return
            file.flush()
            os.fsync(file.fileno())
            found = {name: getattr(self, name) for name in FORMS}
            write_text(self.folder / JOURNAL, json.dumps(found))
            last = time.monotonic()

        try:
            yield note
        finally:
            note(0)

    def _read_journal(self) -> None:
        """Finds out how much is done, or refuses to continue it."""
        self.done, self.replaced = 0, {}
        try:
            found = load_json(self.folder / JOURNAL)
            check_fields(found, FORMS, JOURNAL, tuple(FORMS))
            size = os.path.getsize(self.folder / ROWS)
        except (OSError, ValueError):
            return
        before = found["settings"]
        other = [
            name
            for name in {**before, **self.settings}
            if before.get(name) != self.settings.get(name)
        ]
        if other and not self.overwrite:
            raise ValueError(
                f"{self.path} was left unfinished with other settings "
                f"({', '.join(other)}). Give the same ones, or `overwrite` "
                "(--overwrite) to start anew."
            )
        done = found["done"]
        whole = done == self.count or done % self.block == 0
        if other or not whole or size < 4 * done * self.width:
            return
        self.done, self.replaced = done, found["replaced"]

    def _complete(self, rows: Path, path: Path) -> None:
        """Writes features, labels and paths to one file."""
        order = np.arange(self.count)
        for row, image in self.replaced.items():
            order[int(row)] = image
        columns: dict[str, Any] = {}
        if self.data.paths is not None:
            columns["paths"] = np.array(list(map(str, self.data.paths)))[order]
        if self.data.labels is not None:
            columns["labels"] = np.asarray(self.data.labels)[order]
        classes = list(self.data.class_names or ())
        if self.path.suffix == ".parquet":
            _write_parquet(path, columns, rows, self.shape[1:], classes)
            return
        if classes:
            columns["class_names"] = np.array(classes)
        with zipfile.ZipFile(path, "w") as archive:
            with rows.open("rb") as file:
                with archive.open(ROWS, "w", force_zip64=True) as member:
                    shutil.copyfileobj(file, member, 2**20)
            for name, values in columns.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as to:
                    np.lib.format.write_array(to, values, allow_pickle=False)


def _write_parquet(
    path: Path,
    columns: dict[str, Any],
    rows: Path,
    shape: tuple[int, ...],
    classes: list[str],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    dim = math.prod(shape)
    metadata = {"class_names": json.dumps(classes)} if classes else {}
    if len(shape) > 1:
        metadata["shape"] = json.dumps(shape)

    kinds = {"paths": pa.string(), "labels": pa.int64()}
    schema = pa.schema(
        [
            *((name, kinds[name]) for name in columns),
            ("features", pa.list_(pa.float32(), dim)),
        ],
        metadata or None,
    )
    size = max(1, BLOCK // (4 * dim))
    with rows.open("rb") as file, parquet.ParquetWriter(path, schema) as writer:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start = 0
        # Mapped into memory, they would count as memory in use.
        while (numbers := np.fromfile(file, "<f4", size * dim)).size:
            stop = start + len(numbers) // dim
            part = {name: v[start:stop] for name, v in columns.items()}
            if "paths" in part:  # Names of files may not be UTF-8.
                part["paths"] = [
                    str(name).encode("utf-8", "replace").decode()
                    for name in part["paths"]
                ]
            arrays = [pa.array(v, kinds[name]) for name, v in part.items()]
            arrays.append(pa.FixedSizeListArray.from_arrays(numbers, dim))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            start = stop


def _range(data: ImageData) -> dict[str, Any]:
    """Returns the setting that records a range, if there is one."""
    found = data.value_range
    return {} if found is None else {"range": str(found)}
