"""Which files features are written to; answered before Keras is loaded."""

import importlib.util
from pathlib import Path

SUFFIXES = (".npz", ".npy", ".parquet")


def check_feature_file(path: str | Path, overwrite: bool = False) -> None:
    """Checks that features can be written to a file.

    Args:
        path: path of the file.
        overwrite: bool. Whether it may exist.

    Raises:
        ValueError: if the suffix is none of `SUFFIXES`.
        FileExistsError: if the file exists.
        ImportError: if the package that writes it isn't installed.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            "The file of features must end with .npz, .npy or .parquet. "
            f"Received: {path}"
        )
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder. Give the path of a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists already. Choose another name, or `overwrite` "
            "(--overwrite) to replace it."
        )
    if path.suffix == ".parquet" and not importlib.util.find_spec("pyarrow"):
        raise ImportError(
            "Parquet files need pyarrow. Install it with: "
            'pip install "kerassl[features]"'
        )
