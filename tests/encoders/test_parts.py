"""The parts of an encoder, which may learn at rates of their own."""

import keras
import pytest

from kerassl import encoders
from tests.encoders.test_graph import dinov2


@pytest.mark.parametrize(
    "name, size, first, last",
    [
        ("resnet_nano", 32, "stage1", "stage3"),
        ("resnet_18", 32, "P2", "P5"),
        ("vit_nano", 32, "vit_patching_and_embedding", "transformer_block_6"),
    ],
)
def test_parts_are_in_order_and_complete(name, size, first, last):
    encoder = encoders.build(name, (size, size, 3))
    parts = encoders.parts(encoder)
    assert [list(parts)[0], list(parts)[-1]] == [first, last]
    found = [id(v) for part in parts.values() for v in part]
    assert len(found) == len(set(found))
    assert set(found) == {id(v) for v in encoder.trainable_variables}
    paths = [v.path for v in encoder.trainable_variables]
    ends = [paths.index(part[-1].path) for part in parts.values()]
    assert ends == sorted(ends)


def test_an_encoder_without_stages_is_one_part():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 128, -1)(images))
    encoder = keras.Model(images, keras.layers.Dense(2)(x))
    (part,) = encoders.parts(encoder).values()
    assert len(part) == 2


def test_the_stages_of_dino_are_in_order():
    encoder = encoders.as_encoder(dinov2(num_layers=11))
    expected = [f"stage{i}" for i in range(1, 12)]
    assert encoders.stages(encoder) == expected
    blocks = [f"layers_{i}" for i in range(11)]
    assert list(encoders.parts(encoder))[1:] == blocks
