"""Images in Parquet files, as Hugging Face's data sets store them."""

import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerassl.data.arrays import MAX_BYTES, parse_size
from kerassl.data.decode import Source
from kerassl.data.errors import SplitError
from kerassl.data.files import number_classes, split_name
from kerassl.data.photos import DEFAULT_SIZE, Photos


class Column:
    """Encoded images in a column of bytes, in memory.

    Args:
        values: `pyarrow.ChunkedArray` of bytes.
        rows: int array, the rows that are used.
        source: str, what messages call the files.
    """

    def __init__(self, values: Any, rows: np.ndarray, source: str):
        self.values = values
        self.rows = rows
        self.where = source

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.rows)

    def source(self, index: int) -> Source:
        """Returns the bytes of an image, as an open file."""
        value = self.values[int(self.rows[index])].as_py()
        if value is None:
            raise ValueError("no bytes")
        return io.BytesIO(value)

    def name(self, index: int) -> str:
        """Returns the files and the row."""
        return f"{self.where}[{self.rows[index]}]"

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state with the images that are used only."""
        used = self.values.take(self.rows)
        return {**vars(self), "values": used, "rows": np.arange(len(used))}

    def select(self, indices: Sequence[int] | np.ndarray) -> "Column":
        """Returns some of the images."""
        return Column(self.values, self.rows[indices], self.where)


def load_parquet(
    pattern: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Reads the encoded images of Parquet files into memory.

    The images are the column `image`, or the only column of images: bytes, or
    structs with the field `bytes`. The classes are the column `label`; their
    names are in the metadata that Hugging Face's `datasets` writes.

    Args:
        pattern: path of a file, or of several, with `*`, `?` and `[...]`.
        split: str. All images are the split `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.

    Returns:
        A pair: the photos, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is damaged or has no column of images, they take
            too much memory, there is no such split, or pyarrow is missing.
    """
    if split_name(split) != "train":
        raise SplitError(
            f"All images of Parquet files are the split 'train'. Received: "
            f"split={split!r}. Name the files of each split instead, such as "
            "'train-*.parquet'."
        )
    paths = sorted(glob.glob(str(Path(pattern).expanduser())))
    if not paths:
        raise FileNotFoundError(f"There is no file {pattern!r}.")
    return read_parquet(paths, pattern, image_size, limit)


def read_parquet(
    paths: Sequence[str | Path],
    name: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Reads the encoded images of some files into memory; see `load_parquet`.

    Args:
        paths: the files.
        name: str, what messages call them.
        image_size: see `load_parquet`.
        limit: see `load_parquet`.
    """
    size = parse_size(DEFAULT_SIZE if image_size is None else image_size)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            "Parquet files need pyarrow. Install it with: "
            'pip install "kerassl[features]"'
        ) from error
    try:
        schema = parquet.read_schema(paths[0])
        image = _image_column(schema)
        columns = [image, *({"label"} & set(schema.names))]
        files = [parquet.ParquetFile(path).metadata for path in paths]
        needed = sum(_bytes(file, image) for file in files)
        if needed > MAX_BYTES:
            raise ValueError(
                f"they take {needed / 2**30:.0f} GiB of memory, and "
                f"{MAX_BYTES // 2**30} GiB are allowed. Write the images to "
                "files or tar files"
            )
        table = pa.concat_tables(
            [parquet.read_table(path, columns=columns) for path in paths]
        )
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(
            f"The images of {name!r} can't be read: {error}"
        ) from error
    values = table[image]
    if pa.types.is_struct(values.type):
        chunks = [chunk.field("bytes") for chunk in values.chunks]
        values = pa.chunked_array(chunks, values.type.field("bytes").type)
    classes, labels = None, None
    if "label" in columns and not table["label"].null_count:
        classes, labels = _classes(table["label"].to_pylist(), schema)
    rows = np.arange(len(values))
    photos = Photos(Column(values, rows, name), size, labels)
    return photos.limited(limit), classes


def _image_column(schema: Any) -> str:
    """Returns the name of the column with the images."""

    def is_image(field: Any) -> bool:
        import pyarrow as pa

        kind = field.type
        if pa.types.is_struct(kind):
            if kind.get_field_index("bytes") < 0:
                return False
            kind = kind.field("bytes").type
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    names = [field.name for field in schema if is_image(field)]
    if "image" in names:
        return "image"
    if len(names) == 1:
        return names[0]
    raise ValueError(
        "a column 'image' of bytes is needed, or one such column of another "
        f"name. Found the columns {schema.names}"
    )


def _bytes(metadata: Any, image: str) -> int:
    """Returns how many bytes the images of a file take in memory."""
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            column = row_group.column(number)
            if column.path_in_schema.split(".")[0] == image:
                total += column.total_uncompressed_size
    return total


def _classes(
    labels: list[Any], schema: Any
) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the class names, and the label of each image."""
    names = None
    text = (schema.metadata or {}).get(b"huggingface")
    if text is not None:
        features = json.loads(text).get("info", {}).get("features", {})
        names = features.get("label", {}).get("names")
    if names and all(isinstance(x, int) and x < len(names) for x in labels):
        return tuple(map(str, names)), np.array(labels, "int64")
    return number_classes([str(label) for label in labels])
