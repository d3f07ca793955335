"""Names that are checked before Keras is loaded, which takes seconds."""

from kerassl.choices import check_choice
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
#: The functions of `keras.applications` that make models.
APPLICATIONS = (
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large")),
    "ConvNeXtXLarge",
    *(f"DenseNet{depth}" for depth in (121, 169, 201)),
    *(f"EfficientNetB{i}" for i in range(8)),
    *(f"EfficientNetV2B{i}" for i in range(4)),
    *(f"EfficientNetV2{size}" for size in "SML"),
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MobileNetV3Large",
    "NASNetMobile",
    "NASNetLarge",
    *(f"ResNet{depth}" for depth in (50, 101, 152)),
    *(f"ResNet{depth}V2" for depth in (50, 101, 152)),
    "VGG16",
    "VGG19",
    "Xception",
)
#: What names of encoders of other libraries start with.
LIBRARIES = ("keras", "hub")
#: In place of an encoder's name: that of weights to go on from.
FROM_WEIGHTS = "weights"
#: The file of a run that holds its encoder.
ENCODER = "encoder.keras"
#: Those of a run that goes on from weights: where it began, and its best.
START, BEST = "encoder.start.keras", "encoder.best.keras"
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
    "any_channels",
)
#: The optimizers that recipes name.
OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
#: How the learning rate grows with the batch.
SCALINGS = ("linear", "sqrt", "none")
#: The precisions of a recipe: Keras's dtype policies, or the device's choice.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
#: The choices of `kerassl pretrain --monitor`.
MONITORS = ("knn", "linear", "collapse")
#: The choices of `kerassl pretrain --guard`.
GUARDS = ("neighbors", "knn", "off")
#: Columns of a run's history that measure speed.
TIMES = ("seconds", "images_per_second")


def split_library(name: str) -> tuple[str, str]:
    """Splits the name of an encoder, such as `"hub:dinov2_small"`.

    Returns:
        A tuple of the library, empty for kerassl's own encoders, and the name
        there.
    """
    library, colon, rest = str(name).partition(":")
    if colon and library in LIBRARIES:
        return library, rest
    return "", name


def check_encoder_name(name: str) -> None:
    """Checks the name of an encoder, as far as it is possible without Keras.

    Args:
        name: str, one of `ENCODERS`; `keras:NAME`, where NAME is one of
            `APPLICATIONS`; or `hub:PRESET`, which KerasHub looks up.

    Raises:
        ValueError: if there is no such encoder. The message has the nearest.
    """
    library, rest = split_library(name)
    if library == "keras":
        check_choice("model of `keras.applications`", rest, APPLICATIONS)
    elif library == "hub":
        if not rest:
            raise ValueError(
                "`hub:` needs the name of a preset of KerasHub, as in "
                "hub:dinov2_small."
            )
    else:
        others = (
            "keras:NAME of `keras.applications`",
            "hub:PRESET of KerasHub",
        )
        known = (*ENCODERS, *(f"keras:{model}" for model in APPLICATIONS))
        check_choice("encoder", name, known, (*ENCODERS, *others))
