"""Names that are checked before Keras is loaded, which takes seconds."""

from kerassl.registry import entries

#: The methods, which are the files `recipes/NAME.toml`.
METHODS = tuple(entries())
#: The share of a folder's images that may be unreadable by default.
MAX_UNREADABLE = 0.01
#: The encoders of `kerassl.encoders.build`.
ENCODERS = (
    "resnet_nano",
    "resnet_18_small",
    "resnet_50_small",
    "resnet_18",
    "resnet_50",
    "vit_nano",
    "vit_tiny",
    "vit_small",
    "vit_base",
    "dinov2_small",
    "dinov2_base",
)
#: The file of a run that holds its encoder.
ENCODER = "encoder.keras"
#: The functions of `kerassl.augmentation` that recipes name.
VIEWS = (
    "simclr",
    "moco_v1",
    "moco_v2",
    "byol",
    "swav",
    "dino",
    "context_prediction",
    "jigsaw",
    "crop_flip",
)
#: The optimizers that recipes name.
OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
#: How the learning rate grows with the batch.
SCALINGS = ("linear", "sqrt", "none")
#: The precisions of a recipe: Keras's dtype policies, or the device's choice.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
#: The choices of `kerassl pretrain --monitor`.
MONITORS = ("knn", "linear", "collapse")
#: Columns of a run's history that measure speed.
TIMES = ("seconds", "images_per_second")
