"""Text, tables and figures as HTML."""

import base64
import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Pixels per inch, in the file and on the page.
DPI, SHOWN_DPI = 144, 96
# A narrow screen shrinks a picture to this share of its width, and then
# scrolls it.
SMALLEST = 0.6


def section(title: str, text: str = "", content: str = "") -> str:
    """Returns a section of a title, plain text, and HTML."""
    text = f"<p>{html.escape(text)}</p>\n" if text else ""
    heading = f"<h2>{html.escape(title)}</h2>"
    return f"<section>\n{heading}\n{text}{content}\n</section>"


def warnings(lines: Iterable[str]) -> str:
    """Returns lines of plain text as a list of warnings."""
    items = "\n".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="warnings">\n{items}\n</ul>'


def header(name: str, small: str = "") -> str:
    """Returns the first cell of a table's row, with small print below it."""
    small = f"<small>{html.escape(small)}</small>" if small else ""
    return f'<th scope="row">{html.escape(name)}{small}</th>'


def code(text: str) -> str:
    """Returns a command, which breaks only between words."""
    # Without the spans browsers break lines after hyphens.
    words = [f"<span>{html.escape(word)}</span>" for word in text.split(" ")]
    return f"<code>{' '.join(words)}</code>"


def percent(value: Any) -> str:
    """Returns a number as a percentage, and anything else as a dash."""
    return f"{value:.1%}" if isinstance(value, (int, float)) else "–"


def duration(seconds: float) -> str:
    """Returns a duration in words, such as `"2 h 5 min"`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def picture(figure: "Figure", description: str, vector: bool = False) -> str:
    """Returns a figure as an image embedded in the page.

    Args:
        figure: `matplotlib.figure.Figure`.
        description: str, the text for people who can't see it.
        vector: bool. Whether to draw it as SVG instead of pixels.
    """
    file = io.BytesIO()
    figure.savefig(file, format="svg" if vector else "webp", dpi=DPI)
    data = base64.b64encode(file.getvalue()).decode()
    kind = "svg+xml" if vector else "webp"
    width, height = (round(x * SHOWN_DPI) for x in figure.get_size_inches())
    return (
        f'<figure><img alt="{html.escape(description)}" width="{width}" '
        f'height="{height}" style="min-width: {SMALLEST * width:.0f}px" '
        f'src="data:image/{kind};base64,{data}"></figure>'
    )
