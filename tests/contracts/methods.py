"""The methods that the contract tests cover; add a line for a new one."""

import math
from statistics import NormalDist

import keras
import numpy as np
from keras import layers

import kerassl


def tiny_encoder(image_shape=(28, 28, 1)):
    """A small network that is fast on all backends."""
    inputs = keras.Input(image_shape)
    # Exact in float32, to which TensorFlow rounds constants.
    x = layers.Rescaling(1 / 128, offset=-1)(inputs)
    x = layers.Conv2D(16, 7, strides=4, use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(24, 3, strides=2)(x)
    x = layers.ReLU()(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def simclr(encoder, **kwargs):
    return kerassl.SimCLR(encoder, temperature=0.5, projection_dim=8, **kwargs)


def simclr_v2(encoder, **kwargs):
    return simclr(encoder, version=2, **kwargs)


def supcon(encoder, **kwargs):
    return simclr(encoder, supervised=True, **kwargs)


def labels_for(model, count):
    """Labels of three classes, if the model learns from labels."""
    return np.arange(count) % 3 if model.needs_labels else None


def moco_v1(encoder, **kwargs):
    return moco_v2(encoder, **({"version": 1} | kwargs))


def moco_v2(encoder, **kwargs):
    settings = dict(version=2, temperature=0.5, projection_dim=32)
    settings |= dict(queue_size=32, momentum=0.99, seed=0)
    return kerassl.MoCo(encoder, **(settings | kwargs))


def moco_v3(encoder, **kwargs):
    momentum = kerassl.layers.CosineMomentum(0.9, 32)
    return kerassl.MoCoV3(
        encoder, hidden_dim=16, projection_dim=8, momentum=momentum, **kwargs
    )


def nnclr(encoder, **kwargs):
    settings = dict(temperature=0.5, hidden_dim=16, projection_dim=8)
    settings |= dict(predictor_dim=16, queue_size=64, seed=0)
    return kerassl.NNCLR(encoder, **(settings | kwargs))


def byol(encoder, **kwargs):
    momentum = kerassl.layers.CosineMomentum(0.9, 32)
    return kerassl.BYOL(
        encoder, hidden_dim=16, projection_dim=8, momentum=momentum, **kwargs
    )


def simsiam(encoder, **kwargs):
    return kerassl.SimSiam(
        encoder, projection_dim=64, predictor_dim=32, **kwargs
    )


def fastsiam(encoder, **kwargs):
    size = encoder.input_shape[1]
    augmenter = kerassl.augmentation.moco_v2(size, num_views=3)
    return simsiam(encoder, augmenter=augmenter, **kwargs)


def swav(encoder, **kwargs):
    size = encoder.input_shape[1]
    return kerassl.SwAV(
        encoder,
        num_prototypes=12,
        hidden_dim=16,
        projection_dim=8,
        freeze_prototypes_steps=2,
        queue_size=64,
        queue_start_step=2,
        augmenter=kerassl.augmentation.swav(
            size, local_size=20, num_local_crops=1
        ),
        **kwargs,
    )


def dino(encoder, **kwargs):
    size = encoder.input_shape[1]
    settings = dict(num_prototypes=12, hidden_dim=16, projection_dim=8)
    settings |= dict(head_normalization=True, freeze_last_layer_steps=0)
    settings |= dict(momentum=kerassl.layers.CosineMomentum(0.99, 32))
    temperature = kerassl.optimizers.Ramp(0.04, 0.05, 20, "linear")
    settings |= dict(teacher_temperature=temperature)
    augmenter = kerassl.augmentation.dino(size, 20, num_local_crops=1)
    return kerassl.DINO(encoder, augmenter=augmenter, **(settings | kwargs))


def barlow_twins(encoder, **kwargs):
    return kerassl.BarlowTwins(encoder, projection_dim=16, **kwargs)


def vicreg(encoder, **kwargs):
    return kerassl.VICReg(encoder, projection_dim=16, **kwargs)


def lejepa(encoder, **kwargs):
    settings = dict(projection_dim=8, hidden_dim=16, num_directions=32)
    return kerassl.LeJEPA(encoder, **(settings | kwargs))


def visreg(encoder, **kwargs):
    settings = dict(projection_dim=8, hidden_dim=16, num_directions=32)
    settings |= dict(regularization_weight=0.6)
    return kerassl.VISReg(encoder, **(settings | kwargs))


def emp_ssl(encoder, **kwargs):
    size = encoder.input_shape[1]
    augmenter = kerassl.augmentation.simclr(
        size, crop_area=(0.25, 0.25), num_views=3
    )
    settings = dict(projection_dim=8, hidden_dim=16, augmenter=augmenter)
    return kerassl.EMPSSL(encoder, **(settings | kwargs))


def rotation(encoder, **kwargs):
    return kerassl.Rotation(encoder, **kwargs)


def jigsaw(encoder, **kwargs):
    size = encoder.input_shape[1]
    augmenter = kerassl.augmentation.jigsaw(size, view_size=60)
    settings = dict(num_permutations=4, projection_dim=16, hidden_dim=32)
    return kerassl.Jigsaw(encoder, augmenter=augmenter, **(settings | kwargs))


def context_prediction(encoder, **kwargs):
    size = encoder.input_shape[1]
    augmenter = kerassl.augmentation.context_prediction(size, view_size=60)
    return kerassl.ContextPrediction(
        encoder,
        projection_dim=16,
        hidden_dim=32,
        augmenter=augmenter,
        **kwargs,
    )


def context_encoder(encoder, **kwargs):
    settings = dict(mask="region", bottleneck_dim=32, discriminator_dim=8)
    # The discriminator's loss rises as the painter improves.
    settings |= dict(reconstruction_weight=10.0, adversarial_weight=0.01)
    return kerassl.ContextEncoder(encoder, **(settings | kwargs))


def tiny_vit(encoder):
    """A tiny ViT for the same images, for methods that mask patches."""
    import keras_hub

    shape = encoder.input_shape[1:]
    inputs = keras.Input(shape)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=shape,
        patch_size=shape[0] // 4,
        num_layers=2,
        num_heads=2,
        hidden_dim=24,
        mlp_dim=48,
        name="backbone",
    )
    tokens = backbone(layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    return keras.Model(inputs, layers.Flatten()(tokens[:, :1]))


def mae(encoder, **kwargs):
    settings = dict(decoder_dim=16, decoder_depth=1, decoder_heads=2)
    return kerassl.MAE(tiny_vit(encoder), **(settings | kwargs))


def simmim(encoder, **kwargs):
    # Of 4x4 patches, so that some squares are cut, and masks differ in size.
    return kerassl.SimMIM(tiny_vit(encoder), **({"mask_size": 3} | kwargs))


def ijepa(encoder, **kwargs):
    settings = dict(predictor_dim=16, predictor_depth=1, predictor_heads=2)
    return kerassl.IJEPA(tiny_vit(encoder), **(settings | kwargs))


def ibot(encoder, method=kerassl.IBOT, **kwargs):
    size = encoder.input_shape[1]
    settings = dict(num_prototypes=12, hidden_dim=16, projection_dim=8)
    settings |= dict(head_normalization=True, freeze_last_layer_steps=0)
    settings |= dict(momentum=kerassl.layers.CosineMomentum(0.99, 32))
    if "augmenter" not in kwargs:
        kwargs["augmenter"] = kerassl.augmentation.dino(
            size, size // 2, num_local_crops=1
        )
    return method(tiny_vit(encoder), **(settings | kwargs))


def dinov2(encoder, **kwargs):
    return ibot(encoder, kerassl.DINOv2, **kwargs)


def distillation(encoder, **kwargs):
    """From a teacher of larger images, without moving statistics."""
    inputs = keras.Input((32, 32, encoder.input_shape[-1]))
    x = layers.Rescaling(1 / 128, offset=-1)(inputs)
    x = layers.Conv2D(8, 7, strides=4, activation="relu")(x)
    teacher = keras.Model(inputs, layers.Flatten()(layers.AvgPool2D(3)(x)))
    # At a higher temperature the distributions are nearly equal, and the
    # gradients mostly rounding.
    settings = dict(teacher=teacher, temperature=0.1, queue_size=64)
    return kerassl.Distillation(encoder, **(settings | kwargs))


METHODS = {
    "simclr": simclr,
    "simclr_v2": simclr_v2,
    "supcon": supcon,
    "moco_v1": moco_v1,
    "moco_v2": moco_v2,
    "moco_v3": moco_v3,
    "nnclr": nnclr,
    "byol": byol,
    "simsiam": simsiam,
    "fastsiam": fastsiam,
    "swav": swav,
    "dino": dino,
    "ibot": ibot,
    "dinov2": dinov2,
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "lejepa": lejepa,
    "emp_ssl": emp_ssl,
    "visreg": visreg,
    "rotation": rotation,
    "jigsaw": jigsaw,
    "context_prediction": context_prediction,
    "context_encoder": context_encoder,
    "mae": mae,
    "simmim": simmim,
    "ijepa": ijepa,
    "distillation": distillation,
}

# The number of epochs after which the loss has fallen, if it is more than two.
# MoCo's loss first rises, while keys replace the random queue; SimCLR's with
# three layers falls by little more than its noise at first.
# NNCLR's likewise, while its queue is random.
EPOCHS = {"moco_v1": 6, "moco_v2": 6, "simclr_v2": 5, "nnclr": 5, "byol": 5}
# Distillation's rises while its queue fills.
EPOCHS["distillation"] = 5

# Methods that use a ViT here.
ON_VITS = {"dinov2", "ibot", "ijepa", "mae", "simmim"}

# The number of moving means and variances, if it is below four: rotation has
# only the encoder's, and a ViT has none.
STATISTICS = {"rotation": 2, "distillation": 2}
STATISTICS |= {"ijepa": 0, "mae": 0, "simmim": 0}


def normality_of_zeros():
    """LeJEPA's statistic of projections that are all 0, over their number."""
    density = [math.exp(-((3 * i / 16) ** 2) / 2) for i in range(17)]
    heights = [p * (1 - p) ** 2 for p in density]
    return (3 / 16) * (2 * sum(heights) - heights[0] - heights[-1])


def variance_of_quantiles():
    quantiles = [NormalDist().inv_cdf(i / 33) for i in range(1, 33)]
    return sum(q**2 for q in quantiles) / 32


# The loss of a batch of 32 images that all have the same features, or `None`.
COLLAPSED = {
    "simclr": math.log(63),
    "simclr_v2": math.log(63),
    "supcon": math.log(63),
    "moco_v1": math.log(33),
    "moco_v2": math.log(33),
    "moco_v3": 4 * math.log(32),
    "nnclr": math.log(32),
    "byol": 0,
    "simsiam": -1,
    "fastsiam": -1,
    "swav": math.log(12),
    "dino": math.log(12),
    "ibot": 1.5 * math.log(12),
    "dinov2": 1.5 * math.log(12) - 0.2 * math.log(1e-8 * (1 + math.sqrt(24))),
    "barlow_twins": 16,
    "vicreg": 24.75,
    "emp_ssl": -200 - math.log(41) / 2,
    "visreg": 0.6 * (0.9998 + variance_of_quantiles()),
    "lejepa": 1.6 * normality_of_zeros(),
    "rotation": math.log(4),
    "jigsaw": math.log(4),
    "context_prediction": math.log(8),
    "context_encoder": None,
    "mae": None,
    "simmim": None,
    "ijepa": 0,
    "distillation": None,
}
