"""Pictures of what a model sees and guesses; matplotlib loads on use."""

from kerassl.visualization.answers import (
    draw_views,
    jigsaw_answers,
    position_answers,
    rotation_answers,
)
from kerassl.visualization.pictures import (
    jigsaw,
    positions,
    pretext,
    reconstructions,
    rotations,
    views,
)

__all__ = [
    "draw_views",
    "jigsaw",
    "jigsaw_answers",
    "position_answers",
    "positions",
    "pretext",
    "reconstructions",
    "rotation_answers",
    "rotations",
    "views",
]
