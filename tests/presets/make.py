"""Small presets for the tests of this folder."""

import hashlib
import json

import keras
import numpy as np
from keras import layers

from kerassl import encoders


def graph_encoder():
    """A graph of core layers with most kinds of weights."""
    images = keras.Input((8, 8, 3), name="images")
    x = layers.Rescaling(1 / 255, name="normalization")(images)
    x = layers.Conv2D(8, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = layers.GroupNormalization(4, name="group_norm")(y)
    x = layers.Add(name="add")([x, y])
    x = layers.Activation("gelu", name="gelu")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(4, name="dense")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, x, name="tiny")


def vit_encoder(class_token=True):
    """KerasHub's ViT, as small as it gets."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(8, 8, 3),
        patch_size=(4, 4),
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
        use_class_token=class_token,
        name="backbone",
    )
    return encoders.as_encoder(backbone, normalization="included")


def resnet_encoder(block_type="basic_block"):
    """KerasHub's ResNet, as small as it gets."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type=block_type,
        image_shape=(None, None, 3),
        name="backbone",
    )
    images = keras.Input((16, 16, 3), name="images")
    x = layers.Rescaling([0.1, 0.2, 0.3], -1.0, name="normalization")(images)
    return keras.Model(
        images,
        layers.GlobalAveragePooling2D(name="pool")(backbone(x)),
        name="tiny_resnet",
    )


def randomize(model):
    """Gives a model weights that are all different from the first ones."""
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            (w + rng.uniform(0, 0.1, w.shape)).astype("float32")
            for w in model.get_weights()
        ]
    )
    return model


def images_for(shape, count=3):
    rng = np.random.default_rng(1)
    return rng.uniform(0, 255, (count, *shape)).astype("float32")


def reseal(folder, **fields):
    """Makes `kerassl.json` fit the files again, as an attacker would."""
    path = folder / "kerassl.json"
    info = json.loads(path.read_text())
    for name, entry in info["files"].items():
        if (folder / name).is_file():
            data = (folder / name).read_bytes()
            entry["sha256"] = hashlib.sha256(data).hexdigest()
            entry["size"] = len(data)
    path.write_text(json.dumps(info | fields))
