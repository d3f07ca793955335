"""Plain PyTorch models with the weights' names of the official ones."""

import torch
from torch import nn

from kerassl.encoders.normalization import IMAGENET_MEAN, IMAGENET_STD


class Bottleneck(nn.Module):
    """A block of torchvision's ResNet-50: the 3x3 convolution strides."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + getattr(self, "downsample", nn.Identity())(x)).relu()


class BasicBlock(nn.Module):
    """A block of torchvision's ResNet-18."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        if stride > 1 or inputs != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, width, 1, stride, bias=False),
                nn.BatchNorm2d(width),
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + getattr(self, "downsample", nn.Identity())(x)).relu()


class ResNet(nn.Module):
    """torchvision's ResNets, with other widths and numbers of blocks."""

    def __init__(self, widths=(64, 8), blocks=(2, 1), kind=Bottleneck):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stages = len(widths)
        inputs = 64
        for stage, (width, count) in enumerate(zip(widths, blocks), start=1):
            layer = nn.Sequential()
            for i in range(count):
                stride = 2 if stage > 1 and i == 0 else 1
                layer.append(kind(inputs, width, stride))
                inputs = 4 * width if kind is Bottleneck else width
            setattr(self, f"layer{stage}", layer)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


class Attention(nn.Module):
    """timm's: queries, keys and values are of one matrix."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        queries, keys, values = self.qkv(x).chunk(3, -1)
        return self.proj(attention(queries, keys, values, self.heads))


class Block(nn.Module):
    """timm's."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Module()
        self.mlp.fc1 = nn.Linear(width, 4 * width)
        self.mlp.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        y = nn.functional.gelu(self.mlp.fc1(self.norm2(x)))
        return x + self.mlp.fc2(y)


class ViT(nn.Module):
    """timm's, as MAE, MoCo v3 and DINO have it."""

    def __init__(self, width=12, heads=3, depth=2, patch=4, size=12):
        super().__init__()
        tokens = (size // patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(
            *(Block(width, heads) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([token, x], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class GatedMLP(nn.Module):
    """DINOv2's, in the giant."""

    def __init__(self, width):
        super().__init__()
        inner = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * inner)
        self.w3 = nn.Linear(inner, width)

    def forward(self, x):
        gates, values = self.w12(x).chunk(2, -1)
        return self.w3(nn.functional.silu(gates) * values)


class ScaledBlock(Block):
    """DINOv2's."""

    def __init__(self, width, heads, gated):
        super().__init__(width, heads)
        self.ls1, self.ls2 = nn.Module(), nn.Module()
        self.ls1.gamma = nn.Parameter(torch.ones(width))
        self.ls2.gamma = nn.Parameter(torch.ones(width))
        self.gated = gated
        if gated:
            self.mlp = GatedMLP(width)

    def forward(self, x):
        x = x + self.ls1.gamma * self.attn(self.norm1(x))
        y = self.norm2(x)
        if self.gated:
            return x + self.ls2.gamma * self.mlp(y)
        y = self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(y)))
        return x + self.ls2.gamma * y


class DINOv2(ViT):
    """The authors', with register tokens or without."""

    def __init__(self, width=12, heads=3, depth=2, registers=0, gated=False):
        super().__init__(width, heads, depth)
        self.blocks = nn.Sequential(
            *(ScaledBlock(width, heads, gated) for _ in range(depth))
        )
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        if registers:
            self.register_tokens = nn.Parameter(
                torch.zeros(1, registers, width)
            )

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([token, x], 1) + self.pos_embed
        if hasattr(self, "register_tokens"):
            registers = self.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
        return self.norm(self.blocks(x))[:, 0]


class ViTMAE(nn.Module):
    """The encoder of transformers' ViTMAE, of a flat list of weights."""

    def __init__(self, width=12, heads=3, depth=2, patch=4, size=12):
        super().__init__()
        self.heads, self.depth, self.patch = heads, depth, patch
        tokens = (size // patch) ** 2 + 1
        embeddings, projection = "embeddings", "embeddings.patch_embeddings"
        shapes = {
            f"{embeddings}.cls_token": (1, 1, width),
            f"{embeddings}.position_embeddings": (1, tokens, width),
            f"{projection}.projection.weight": (width, 3, patch, patch),
            f"{projection}.projection.bias": (width,),
            "layernorm.weight": (width,),
            "layernorm.bias": (width,),
        }
        for i in range(depth):
            block = f"encoder.layer.{i}"
            for name, size in {
                "attention.attention.query": (width, width),
                "attention.attention.key": (width, width),
                "attention.attention.value": (width, width),
                "attention.output.dense": (width, width),
                "intermediate.dense": (4 * width, width),
                "output.dense": (width, 4 * width),
                "layernorm_before": (width,),
                "layernorm_after": (width,),
            }.items():
                shapes[f"{block}.{name}.weight"] = size
                shapes[f"{block}.{name}.bias"] = size[:1]
        self.weights = {
            name: nn.Parameter(torch.zeros(size))
            for name, size in shapes.items()
        }

    def state_dict(self):
        return dict(self.weights)

    def forward(self, x):
        functional, weights = nn.functional, self.weights

        def linear(name, x):
            return functional.linear(
                x, weights[f"{name}.weight"], weights[f"{name}.bias"]
            )

        def norm(name, x):
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-12)

        name = "embeddings.patch_embeddings.projection"
        x = functional.conv2d(
            x, weights[f"{name}.weight"], weights[f"{name}.bias"], self.patch
        )
        x = x.flatten(2).transpose(1, 2)
        token = weights["embeddings.cls_token"].expand(len(x), -1, -1)
        x = torch.cat([token, x], 1) + weights["embeddings.position_embeddings"]
        for i in range(self.depth):
            block = f"encoder.layer.{i}"
            y = norm(f"{block}.layernorm_before", x)
            parts = (
                linear(f"{block}.attention.attention.{part}", y)
                for part in ("query", "key", "value")
            )
            y = attention(*parts, self.heads)
            x = x + linear(f"{block}.attention.output.dense", y)
            y = norm(f"{block}.layernorm_after", x)
            y = functional.gelu(linear(f"{block}.intermediate.dense", y))
            x = x + linear(f"{block}.output.dense", y)
        return norm("layernorm", x)[:, 0]


def attention(queries, keys, values, heads):
    """Attends in each head, written out."""
    count, tokens, width = queries.shape
    queries, keys, values = (
        x.reshape(count, tokens, heads, width // heads).transpose(1, 2)
        for x in (queries, keys, values)
    )
    scores = queries @ keys.transpose(2, 3) / (width // heads) ** 0.5
    mixed = scores.softmax(-1) @ values
    return mixed.transpose(1, 2).reshape(count, tokens, width)


def randomized(model):
    """Gives a model weights in which every detail shows.

    Variances are small beside the epsilon of a normalization, and no weight is
    like another.
    """
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.rand(value.shape, generator=generator)
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.02 + 0.1 * noise)
            elif value.ndim > 1:
                inputs = value[0].numel() if value.shape[0] > 1 else 1
                value.copy_(2 * (noise - 0.5) / inputs**0.5)
            elif "weight" in name:
                value.copy_(0.3 + 0.3 * noise)
            else:
                value.copy_(noise - 0.5)
    return model.eval()


def features(model, images, std=IMAGENET_STD, mean=IMAGENET_MEAN):
    """Returns a model's features of images (N, H, W, C) in [0, 255]."""
    mean, std = torch.tensor(mean), torch.tensor(std)
    x = (torch.from_numpy(images) / 255 - mean) / std
    with torch.no_grad():
        return model(x.permute(0, 3, 1, 2)).numpy()
