"""A figure that notebooks show; imports matplotlib."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that notebooks show, although pyplot doesn't know it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()
