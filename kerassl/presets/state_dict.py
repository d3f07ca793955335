"""The weights in a PyTorch checkpoint, by their names in Keras."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from kerassl.presets.checkpoints import (
    PARTS,
    QKV,
    SOURCES,
    VARIABLES,
    Source,
)
from kerassl.presets.format.architecture import Weight
from kerassl.presets.format.info import check
from kerassl.presets.tensors import read_tensors, shape_of
from kerassl.reading import shown

# Ends of names of DINOv2's own weights, which have PyTorch's shapes.
OWN = ("_token", "_tokens", "position_embeddings")
MOST_PROBLEMS = 5  # listed in an error
# Heads of classifiers in torchvision, timm and transformers.
CLASSIFIERS = ("head.weight", "fc.weight", "classifier.weight")


class Checkpoint:
    """The arrays of a file, by their names in Keras.

    Args:
        path: of the file.
        name: str, of its source.

    Raises:
        PresetError: if it is no checkpoint of that source.
    """

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name
        self.source: Source = SOURCES[name]
        state = read_tensors(path)
        for key in self.source.keys:
            if isinstance(state, dict) and key in state:
                state = state[key]
                break
        check(
            isinstance(state, dict) and all(isinstance(k, str) for k in state),
            f"{path} holds no dict of names to tensors, as PyTorch saves them.",
        )
        self.state: dict[str, Any] = state
        self._check_bytes()
        anchors = [
            f"{start}{prefix}{self.source.names.anchor}"
            for prefix in self.source.prefixes
            for start in ("module.", "")
        ]
        found = [anchor for anchor in anchors if anchor in state]
        check(
            found,
            f"{path} is not a checkpoint of {name}: it has none of the keys "
            f"{anchors}. Found: {shown(list(state)[:MOST_PROBLEMS])} and so "
            "on.",
        )
        self.prefix = found[0].removesuffix(self.source.names.anchor)
        for key in [
            p + head for p in ("", self.prefix) for head in CLASSIFIERS
        ]:
            check(
                key not in state or self._is_ignored(key),
                f"{path} holds a classifier, {key!r} of shape "
                f"{shape_of(state.get(key))}, so it isn't the encoder that "
                f"{self.source.title} trained, but another or a "
                "fine-tuned one. Its license and normalization are unknown.",
            )

    def _check_bytes(self) -> None:
        """Refuses tensors with more numbers than the file contains.

        Strides of 0 and shared storage can turn a few numbers into gigabytes.
        """
        held = self.path.stat().st_size
        taken = sum(
            value.nbytes
            for key, value in self.state.items()
            if not self._is_ignored(key) and shape_of(value) is not None
        )
        check(
            taken <= held,
            f"{self.path} has {held:,} bytes, and its tensors would be "
            f"{taken:,}: they repeat numbers, which checkpoints of encoders "
            "don't.",
        )

    def blocks(self) -> list[tuple[int, ...]]:
        """Returns the indices of all blocks in PyTorch."""
        pattern = re.compile(re.escape(self.prefix) + self.source.names.blocks)
        found = (pattern.match(key) for key in self.state)
        return [tuple(map(int, match.groups())) for match in found if match]

    def key(self, name: str) -> str:
        """Returns the PyTorch key of a weight in Keras."""
        layers = self.source.names.layers
        path, _, variable = name.rpartition("/")
        if not path:
            return self.prefix + layers[name]
        numbered = r"(stack|block_?|layers_)(\d+)"
        numbers = [int(number) for _, number in re.findall(numbered, path)]
        if numbers:
            numbers[0] += self.source.names.shift
        layer = re.sub(numbered, r"\1*", path).rpartition("/")[-1]
        found = layers[layer].format(*numbers)
        return self.prefix + found + VARIABLES[variable]

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        """Returns the PyTorch shape of a weight in Keras."""
        key = self.key(name)
        shape = shape_of(self.state.get(key))
        check(
            shape is not None and len(shape) == rank,
            f"{self.path} is not a checkpoint of {self.name}: {key!r} must be "
            f"a tensor of rank {rank}. Found: {shape}",
        )
        return shape  # type: ignore[return-value]

    def arrays(self, weights: list[Weight]) -> list[np.ndarray]:
        """Returns the arrays for Keras's weights, after checking all keys."""
        needed = {
            self.key(w.name): _needed(w, QKV in self.key(w.name))
            for w in weights
        }
        problems = []
        for key, shape in needed.items():
            found = shape_of(self.state.get(key))
            if key not in self.state:
                problems.append(f"{key!r} of shape {shape} is missing")
            elif found != shape:
                problems.append(f"{key!r} has shape {found} instead of {shape}")
        for key, value in self.state.items():
            if key not in needed and not self._is_ignored(key):
                found = shape_of(value)
                problems.append(f"{key!r} of shape {found} is unexpected")
        check(
            not problems,
            f"{self.path} is not a checkpoint of {self.name} that a "
            f"{self.source.names.class_name} can hold, {len(problems)} keys "
            f"are wrong: {'; '.join(problems[:MOST_PROBLEMS])}.",
        )
        return [self._array(weight) for weight in weights]

    def _is_ignored(self, key: str) -> bool:
        key = key.removeprefix("module.")
        return (
            key.endswith(".num_batches_tracked")
            or key.startswith(self.source.ignored)
            or (self.source.rest and not key.startswith(self.source.prefixes))
        )

    def _array(self, weight: Weight) -> np.ndarray:
        key = self.key(weight.name)
        value = self.state[key]
        if not isinstance(value, np.ndarray):
            value = value.detach().float().numpy()
        if QKV in key:
            part = PARTS.index(weight.name.split("/")[-2])
            value = np.split(value, 3)[part]
        if weight.name.endswith("/kernel"):
            value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
        return value.reshape(weight.shape).astype("float32")


def _needed(weight: Weight, fused: bool) -> tuple[int, ...]:
    """Returns a weight's shape in PyTorch, with outputs first."""
    shape, size = weight.shape, math.prod(weight.shape)
    variable = weight.name.rpartition("/")[-1]
    if variable == "class_token" or variable.endswith(OWN):
        return shape
    if variable == "embeddings":
        return (1, *shape)
    parts = 3 if fused else 1
    if variable != "kernel":
        return (parts * size,)
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return (outputs, inputs, height, width)
    # Queries, keys and values map to heads, the attention output from heads.
    inputs = (
        size // shape[-1] if "attention_output" in weight.name else shape[0]
    )
    return (parts * (size // inputs), inputs)
