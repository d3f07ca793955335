"""Images in Parquet files, as Hugging Face's data sets store them."""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kerassl.data.arrays import MAX_BYTES, parse_size
from kerassl.data.files import check_is_train, number_classes
from kerassl.data.photos import DEFAULT_SIZE, Photos
from kerassl.data.remote import (
    find_files,
    for_each,
    is_url,
    open_file,
    unreachable,
)
from kerassl.data.row_groups import Column, RowGroups, bytes_of

_logger = logging.getLogger("kerassl")

# Where the metadata of most files begins, from the end.
_FOOTER_BYTES = 2**16


def load_parquet(
    pattern: str,
    split: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Finds the encoded images of Parquet files.

    They are read into memory, or as they are needed if they are at URLs or
    take too much.

    The images are the column `image`, or the only column of images: bytes, or
    structs with the field `bytes`. The classes are the column `label`; their
    names are in the metadata that Hugging Face's `datasets` writes.

    Args:
        pattern: path or URL of a file, or of several, as in `find_files`.
        split: str. All images are the split `"train"`.
        image_size: int, `(height, width)`, or `None` for 224.
        limit: int, how many images to keep, evenly spaced; or `None` for all.

    Returns:
        A pair: the photos, and the class names or `None`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file is damaged or has no column of images, there is no
            such split, or pyarrow is missing.
    """
    check_is_train(split, "Parquet files", "train-*.parquet")
    return read_parquet(find_files(pattern), pattern, image_size, limit)


def read_parquet(
    paths: Sequence[str],
    name: str,
    image_size: int | tuple[int, int] | None,
    limit: int | None,
) -> tuple[Photos, tuple[str, ...] | None]:
    """Finds the encoded images of some files; see `load_parquet`.

    Args:
        paths: the paths or URLs of the files.
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

    def about(path: str) -> Any:
        with _named(path), open_file(path, ahead=_FOOTER_BYTES) as file:
            found = parquet.ParquetFile(file)
            return found.metadata, found.schema_arrow

    def read(path: str, columns: list[str]) -> Any:
        with _named(path), open_file(path, ahead=0) as file:
            return parquet.ParquetFile(file, pre_buffer=True).read(columns)

    metadata, schemas = zip(*for_each(about, paths))
    schema = schemas[0]
    image = _image_column(schema, name)
    _check_alike(paths, schemas, [image, "label"])
    label = [name for name in schema.names if name == "label"]
    sizes = [one for file in metadata for one in _bytes(file, image)]
    stay = any(map(is_url, paths)) or sum(sizes) > MAX_BYTES
    columns = label if stay else [image, *label]
    table: Any = None
    if columns:
        tables = for_each(lambda path: read(path, columns), paths)
        # Files may hold their columns in any order, and in some of them a
        # column may be without missing values.
        ordered = [table.select(columns) for table in tables]
        table = pa.concat_tables(ordered, promote_options="default")
    records: Column | RowGroups
    if stay:
        records = RowGroups(paths, metadata, image, name, sizes)
    else:
        values = bytes_of(table[image])
        records = Column(values, np.arange(len(values)), name)
    classes, labels = None, None
    if label and (missing := table["label"].null_count):
        _logger.warning(
            "No image of %r has a label, since %d of %d have none.",
            name,
            missing,
            len(table),
        )
    elif label:
        classes, labels = _classes(table["label"].to_pylist(), schema)
    return Photos(records, size, labels).limited(limit), classes


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Names a file that can't be read: libraries have errors of their own."""
    try:
        yield
    except Exception as error:
        raise unreachable(path, error) from error


def _check_alike(
    paths: Sequence[str], schemas: Sequence[Any], columns: Sequence[str]
) -> None:
    """Raises a `ValueError` if a column isn't of the same type in all files."""

    def form(schema: Any, name: str) -> str:
        known = name in schema.names
        return str(schema.field(name).type) if known else "no such column"

    for name in columns:
        needed = form(schemas[0], name)
        for path, schema in zip(paths, schemas):
            if (found := form(schema, name)) != needed:
                raise ValueError(
                    f"The column {name!r} of {path!r} is of another type than "
                    f"that of {paths[0]!r}. Found: {found} and {needed}"
                )


def _image_column(schema: Any, name: str) -> str:
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
        f"{name!r} needs a column 'image' of bytes, or one such column of "
        f"another name. Found: {schema.names}"
    )


def _bytes(metadata: Any, image: str) -> list[int]:
    """Returns how many bytes the images of each row group take in memory."""
    sizes = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(i) for i in range(group.num_columns)]
        sizes.append(
            sum(
                column.total_uncompressed_size
                for column in columns
                if column.path_in_schema.split(".")[0] == image
            )
        )
    return sizes


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
