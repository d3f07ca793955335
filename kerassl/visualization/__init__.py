"""Pictures of views, guesses and features; matplotlib is loaded on use."""

from kerassl.visualization.answers import (
    draw_views,
    jigsaw_answers,
    position_answers,
    rotation_answers,
)
from kerassl.visualization.attention import attention_maps, class_attention
from kerassl.visualization.correlation import cross_correlation
from kerassl.visualization.curves import learning_curves, read_curves
from kerassl.visualization.histogram import feature_histogram
from kerassl.visualization.maps import embedding_map, project
from kerassl.visualization.neighbors import nearest, neighbors
from kerassl.visualization.pictures import (
    jigsaw,
    positions,
    pretext,
    reconstructions,
    rotations,
    views,
)

__all__ = [
    "attention_maps",
    "class_attention",
    "cross_correlation",
    "draw_views",
    "embedding_map",
    "feature_histogram",
    "jigsaw",
    "jigsaw_answers",
    "learning_curves",
    "nearest",
    "neighbors",
    "position_answers",
    "positions",
    "pretext",
    "project",
    "read_curves",
    "reconstructions",
    "rotation_answers",
    "rotations",
    "views",
]
