"""How `kerassl presets` shows presets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from kerassl.reading import one_line

if TYPE_CHECKING:
    from kerassl.presets import PresetInfo


def summary(info: "PresetInfo") -> str:
    """Returns an encoder's name, the images that it takes and its width."""
    height, width, channels = (size or "any" for size in info.image_shape)
    return (
        f"{info.architecture}, images {height} x {width} x {channels}, "
        f"{info.features} features"
    )


def has_license(info: "PresetInfo") -> bool:
    """Whether a preset says what others may do with it."""
    return info.license != "unknown"


def shown_license(info: "PresetInfo") -> str:
    """Returns a preset's license as it is shown."""
    return info.license if has_license(info) else "none"


def megabytes(info: "PresetInfo") -> str:
    """Returns the size of a preset's files."""
    size = sum(int(entry["size"]) for entry in info.files.values())
    return f"{size / 1e6:.1f} MB"


def accuracy(scores: dict[str, Any]) -> str:
    """Returns the accuracy of a protocol, or an empty text without one."""
    return f"{scores['accuracy']:.4f}" if "accuracy" in scores else ""


def print_table(
    rows: Sequence[Sequence[str]], file: TextIO | None = None
) -> None:
    """Prints aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        print("  ".join(cells).rstrip(), file=file)


def plain(value: Any) -> str:
    """Returns untrusted text without control characters."""
    return one_line(str(value))
