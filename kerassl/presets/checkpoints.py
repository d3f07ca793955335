"""Tables of PyTorch checkpoints and the names of their weights.

To support another checkpoint, add an entry to `SOURCES`.
"""

import dataclasses

from kerassl.encoders.normalization import IMAGENET_STD
from kerassl.presets.format.positions import DINO, IBOT


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of an architecture's weights in PyTorch.

    Args:
        class_name: str, the KerasHub backbone that gets the weights.
        anchor: str, a key that every such state dict has.
        blocks: str, a regular expression for the start of a block's keys,
            whose groups are the block's indices.
        shift: int, the difference between the first index in PyTorch and in
            Keras.
        layers: dict of a layer's name in Keras, with `*` for indices, to its
            name in PyTorch, with `{}` for them. For a weight of the backbone's
            own, the dict has its name and PyTorch's whole key.
    """

    class_name: str
    anchor: str
    blocks: str
    shift: int
    layers: dict[str, str]


# The end of a PyTorch key, by the name of the variable in Keras.
VARIABLES = {
    "kernel": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "moving_mean": ".running_mean",
    "moving_variance": ".running_var",
    "class_token": "",
    "embeddings": "",
    "lambda1": ".gamma",
}
# A PyTorch layer with `QKV` in its name combines these Keras layers, in order.
QKV, PARTS = ".qkv.", ("query", "key", "value")

TORCHVISION = Names(
    class_name="ResNetBackbone",
    anchor="conv1.weight",
    blocks=r"layer(\d{1,2})\.(\d{1,3})\.",
    shift=1,
    layers={
        "conv1_conv": "conv1",
        "conv1_bn": "bn1",
        "stack*_block*_0_conv": "layer{}.{}.downsample.0",
        "stack*_block*_0_bn": "layer{}.{}.downsample.1",
        "stack*_block*_1_conv": "layer{}.{}.conv1",
        "stack*_block*_1_bn": "layer{}.{}.bn1",
        "stack*_block*_2_conv": "layer{}.{}.conv2",
        "stack*_block*_2_bn": "layer{}.{}.bn2",
        "stack*_block*_3_conv": "layer{}.{}.conv3",
        "stack*_block*_3_bn": "layer{}.{}.bn3",
    },
)
# As lightly has it: the children of torchvision's, without names.
SEQUENTIAL = dataclasses.replace(
    TORCHVISION,
    anchor="0.weight",
    blocks=r"([4-7])\.(\d{1,3})\.",
    shift=4,
    layers={
        layer: name.replace("layer{}", "{}")
        for layer, name in TORCHVISION.layers.items()
    }
    | {"conv1_conv": "0", "conv1_bn": "1"},
)
TIMM = Names(
    class_name="ViTBackbone",
    anchor="cls_token",
    blocks=r"blocks\.(\d{1,3})\.",
    shift=-1,
    layers={
        "vit_patching_and_embedding": "cls_token",
        "patch_embedding": "patch_embed.proj",
        "position_embedding": "pos_embed",
        "ln_1": "blocks.{}.norm1",
        "query": "blocks.{}.attn.qkv",
        "key": "blocks.{}.attn.qkv",
        "value": "blocks.{}.attn.qkv",
        "attention_output": "blocks.{}.attn.proj",
        "ln_2": "blocks.{}.norm2",
        "dense_1": "blocks.{}.mlp.fc1",
        "dense_2": "blocks.{}.mlp.fc2",
        "ln": "norm",
    },
)
DINOV2 = Names(
    class_name="DINOV2Backbone",
    anchor="cls_token",
    blocks=r"blocks\.(\d{1,3})\.",
    shift=0,
    layers={
        "cls_token": "cls_token",
        "mask_token": "mask_token",
        "register_tokens": "register_tokens",
        "interpolated_position_embeddings": "pos_embed",
        "position_embeddings": "pos_embed",
        "projection": "patch_embed.proj",
        "norm1": "blocks.{}.norm1",
        "query": "blocks.{}.attn.qkv",
        "key": "blocks.{}.attn.qkv",
        "value": "blocks.{}.attn.qkv",
        "attention_output": "blocks.{}.attn.proj",
        "layer_scale1": "blocks.{}.ls1",
        "norm2": "blocks.{}.norm2",
        "fc1": "blocks.{}.mlp.fc1",
        "fc2": "blocks.{}.mlp.fc2",
        "weights_in": "blocks.{}.mlp.w12",
        "weights_out": "blocks.{}.mlp.w3",
        "layer_scale2": "blocks.{}.ls2",
        "gamma": "norm.weight",
        "beta": "norm.bias",
    },
)
TRANSFORMERS = Names(
    class_name="ViTBackbone",
    anchor="embeddings.cls_token",
    blocks=r"encoder\.layer\.(\d{1,3})\.",
    shift=-1,
    layers={
        "vit_patching_and_embedding": "embeddings.cls_token",
        "patch_embedding": "embeddings.patch_embeddings.projection",
        "position_embedding": "embeddings.position_embeddings",
        "ln_1": "encoder.layer.{}.layernorm_before",
        "query": "encoder.layer.{}.attention.attention.query",
        "key": "encoder.layer.{}.attention.attention.key",
        "value": "encoder.layer.{}.attention.attention.value",
        "attention_output": "encoder.layer.{}.attention.output.dense",
        "ln_2": "encoder.layer.{}.layernorm_after",
        "dense_1": "encoder.layer.{}.intermediate.dense",
        "dense_2": "encoder.layer.{}.output.dense",
        "ln": "layernorm",
    },
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A kind of checkpoint.

    Those of `stated` are any that have the layout. Their license, mean and
    deviation are then unknown, and have to be given.

    Args:
        title: str, the method.
        names: `Names` of the weights.
        license: str, of the original weights, as the Hub spells it.
        paper: str, its URL.
        url: str, the page that offers the weights.
        keys: keys that may hold the state dict; the first one found counts.
            Without any, the whole file is the state dict.
        prefixes: prefixes of the encoder in the state dict; the first one found
            counts. `module.`, from distributed training, may precede them.
        ignored: starts of keys that are left out. `module.` may precede them.
        heads: dict of a ViT's width to its number of heads, which no shape
            reveals.
        epsilon: float, of a ViT's normalization layers.
        std: standard deviation of each channel for images in [0, 1]. The mean
            is ImageNet's.
        dataset: str, the training data, as the Hub spells it; empty if it isn't
            public.
        stated: bool.
        rest: bool. Whether all keys without one of the prefixes are left out:
            heads and other networks of any method.
    """

    title: str
    names: Names
    license: str = ""
    paper: str = ""
    url: str = ""
    keys: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ("",)
    ignored: tuple[str, ...] = ()
    heads: dict[int, int] = dataclasses.field(default_factory=dict)
    epsilon: float = 1e-6
    std: tuple[float, float, float] = IMAGENET_STD
    dataset: str = "imagenet-1k"
    stated: bool = False
    rest: bool = False


# The names of ViTs by their width.
VITS = {384: "vit_small", 768: "vit_base", 1024: "vit_large", 1280: "vit_huge"}

_MOCO_REST = ("encoder_k.", "queue")
_MOCO = Source(
    title="MoCo v1",
    names=TORCHVISION,
    # Of the weights when they were published. The code is MIT by now.
    license="cc-by-nc-4.0",
    paper="https://arxiv.org/abs/1911.05722",
    url="https://github.com/facebookresearch/moco",
    keys=("state_dict",),
    prefixes=("encoder_q.",),
    # v1 is recognized by its head of one layer.
    ignored=("encoder_q.fc.weight", "encoder_q.fc.bias", *_MOCO_REST),
)
_MAE = Source(
    title="MAE",
    names=TIMM,
    license="cc-by-nc-4.0",
    paper="https://arxiv.org/abs/2111.06377",
    url="https://github.com/facebookresearch/mae",
    keys=("model",),
    ignored=("mask_token", "decoder_"),
    heads={768: 12, 1024: 16, 1280: 16},
)
_DINO = Source(
    title=DINO,
    names=TIMM,
    license="apache-2.0",
    paper="https://arxiv.org/abs/2104.14294",
    url="https://github.com/facebookresearch/dino",
    keys=("teacher",),
    prefixes=("backbone.", ""),
    # Not the head of a classifier, as in timm or after fine-tuning.
    ignored=("head.mlp.", "head.last_layer."),
    heads={192: 3, 384: 6, 768: 12},
)
_MOCO_V3 = Source(
    title="MoCo v3",
    names=TIMM,
    license="cc-by-nc-4.0",
    paper="https://arxiv.org/abs/2104.02057",
    url="https://github.com/facebookresearch/moco-v3",
    keys=("state_dict",),
    prefixes=("base_encoder.",),
    ignored=("base_encoder.head.", "momentum_encoder.", "predictor."),
    # The small one has 12 too, unlike DINO's.
    heads={384: 12, 768: 12, 1024: 16, 1280: 16},
)
_KEYS = ("state_dict", "model")
# Of ViTs whose heads are 64 wide, and of the huge one.
_USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
SOURCES: dict[str, Source] = {
    "moco_v1_resnet50": _MOCO,
    "moco_v2_resnet50": dataclasses.replace(
        _MOCO,
        title="MoCo v2",
        paper="https://arxiv.org/abs/2003.04297",
        ignored=("encoder_q.fc.0.", "encoder_q.fc.2.", *_MOCO_REST),
    ),
    "simsiam_resnet50": Source(
        title="SimSiam",
        names=TORCHVISION,
        license="cc-by-nc-4.0",
        paper="https://arxiv.org/abs/2011.10566",
        url="https://github.com/facebookresearch/simsiam",
        keys=("state_dict",),
        prefixes=("encoder.",),
        ignored=("encoder.fc.", "predictor."),
    ),
    "swav_resnet50": Source(
        title="SwAV",
        names=TORCHVISION,
        license="cc-by-nc-4.0",
        paper="https://arxiv.org/abs/2006.09882",
        url="https://github.com/facebookresearch/swav",
        keys=("state_dict",),
        ignored=("projection_head.", "prototypes."),
        # 0.228 instead of ImageNet's 0.229, in the authors' code.
        std=(0.228, 0.224, 0.225),
    ),
    "barlow_twins_resnet50": Source(
        title="Barlow Twins",
        names=TORCHVISION,
        license="mit",
        paper="https://arxiv.org/abs/2103.03230",
        url="https://github.com/facebookresearch/barlowtwins",
        keys=("model",),
        prefixes=("backbone.", ""),
        ignored=("projector.", "bn."),
    ),
    "vicreg_resnet50": Source(
        title="VICReg",
        names=TORCHVISION,
        license="mit",
        paper="https://arxiv.org/abs/2105.04906",
        url="https://github.com/facebookresearch/vicreg",
        keys=("model",),
        prefixes=("backbone.", ""),
        ignored=("projector.",),
    ),
    "dino_resnet50": dataclasses.replace(_DINO, names=TORCHVISION, heads={}),
    "dino_vit": _DINO,
    "dino_vit_transformers": dataclasses.replace(
        _DINO,
        names=TRANSFORMERS,
        url="https://huggingface.co/facebook/dino-vits16",
        keys=(),
        prefixes=("",),
        # A classifier's ViT has a pooler.
        ignored=(),
        epsilon=1e-12,
    ),
    "dinov2_vit": Source(
        title="DINOv2",
        names=DINOV2,
        license="apache-2.0",
        paper="https://arxiv.org/abs/2304.07193",
        url="https://github.com/facebookresearch/dinov2",
        heads={384: 6, 768: 12, 1024: 16, 1536: 24},
        dataset="",
    ),
    "ibot_vit": dataclasses.replace(
        _DINO,
        title=IBOT,
        paper="https://arxiv.org/abs/2111.07832",
        url="https://github.com/bytedance/ibot",
        keys=("teacher", "state_dict"),
        ignored=(
            "masked_embed",
            *(f"head.{part}" for part in ("mlp", "last_layer", "last_norm")),
        ),
        heads={384: 6, 768: 12, 1024: 16},
    ),
    "mae_vit": _MAE,
    "mae_vit_transformers": dataclasses.replace(
        _MAE,
        names=TRANSFORMERS,
        url="https://huggingface.co/facebook/vit-mae-base",
        keys=(),
        prefixes=("vit.", ""),
        ignored=("decoder.",),
        epsilon=1e-12,
    ),
    "moco_v3_resnet50": dataclasses.replace(
        _MOCO_V3,
        names=TORCHVISION,
        ignored=(
            *(f"base_encoder.fc.{i}." for i in (0, 1, 3, 4)),
            "momentum_encoder.",
            "predictor.",
        ),
        heads={},
    ),
    "moco_v3_vit": _MOCO_V3,
    "torchvision_resnet": Source(
        title="torchvision's ResNet",
        names=TORCHVISION,
        keys=_KEYS,
        ignored=("fc.",),
        stated=True,
    ),
    "timm_vit": Source(
        title="timm's ViT",
        names=TIMM,
        keys=_KEYS,
        ignored=("head.",),
        heads=_USUAL_HEADS,
        stated=True,
    ),
    "solo_learn_resnet": Source(
        title="solo-learn's ResNet",
        names=TORCHVISION,
        keys=_KEYS,
        prefixes=("backbone.",),
        ignored=("backbone.fc.",),
        stated=True,
        rest=True,
    ),
    "solo_learn_vit": Source(
        title="solo-learn's ViT",
        names=TIMM,
        keys=_KEYS,
        prefixes=("backbone.",),
        ignored=("backbone.head.",),
        heads=_USUAL_HEADS,
        stated=True,
        rest=True,
    ),
    "lightly_resnet": Source(
        title="lightly's ResNet",
        names=SEQUENTIAL,
        keys=_KEYS,
        prefixes=("backbone.",),
        stated=True,
        rest=True,
    ),
}
