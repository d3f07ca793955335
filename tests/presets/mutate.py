"""Breaks the files of presets, in ways drawn from a seed."""

import json
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

# Stand-ins for what `json.dumps` doesn't write.
RAW = {
    "@digits": "9" * 400,
    "@minus": "-" + "9" * 25,
    "@nan": "NaN",
    "@infinity": "1e999",
    "@zeros": "0." + "0" * 100 + "1",
    "@deep": "[" * 420 + "]" * 420,
    "@escape": '"\\u001b]0;x\\u0007\\ud800"',
}
VALUES = [
    *RAW,
    *(None, True, False, 0, -1, 1, 2, 3, 7, 64, 65536, 2**31, 2**63 - 1),
    *(0.0, -0.5, 1e-9, 1e30, 1e308, "", "x", "\x1b[31m", "x" * 3000),
    *([], {}, [[]], [0, 0], [1, None], {"class_name": "Lambda"}, "float32"),
    *("same", "valid", "relu", "linear", "softmax", "keras.layers", "Dense"),
    *("Reshape", "UpSampling2D", "Multiply", "Concatenate", "Flatten"),
]


def mutated_json(text: str, rng: random.Random) -> bytes:
    """Returns the text of a JSON file with one to three mistakes."""
    value = json.loads(text)
    for _ in range(rng.choice([1, 1, 2, 3])):
        value = _mutate(value, rng)
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    if rng.random() < 0.1:  # A key that is there twice.
        keys = re.findall(r'"\w+": (?:\d+|null|true)', text) or [""]
        key = rng.choice(keys)
        text = text.replace(key, f"{key}, {key}", 1)
    data = bytearray(text.encode())
    if rng.random() < 0.1:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each container and each of its keys."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, part in pairs:
        yield value, key
        yield from _nodes(part)


def _mutate(value: Any, rng: random.Random) -> Any:
    nodes = list(_nodes(value))
    if not nodes or rng.random() < 0.01:
        return rng.choice(VALUES)
    parent, key = rng.choice(nodes)
    old = parent[key]
    kind = rng.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        other, name = rng.choice(nodes)
        if name in other if isinstance(other, dict) else name < len(other):
            parent[key] = json.loads(json.dumps(other[name]))
    elif kind == 2 and isinstance(parent, dict):
        names = [*(k for p, k in nodes if isinstance(p, dict)), "x", "\x1b[1m"]
        parent[rng.choice(names)] = parent.pop(key)
    elif kind == 3 and isinstance(parent, list):
        parent.insert(rng.randint(0, len(parent)), old)
    elif kind == 4 and isinstance(old, (int, float)):
        parent[key] = rng.choice([-old, old + 1, old * 2, float(old), str(old)])
    elif kind == 5:
        parent[key] = [old]
    else:
        parent[key] = rng.choice(VALUES)
    return value


def mutated_hdf5(
    data: bytes, weights: list[tuple[int, int]], rng: random.Random
) -> bytes:
    """Returns the bytes of an HDF5 file, with one to three mistakes.

    Args:
        data: the file.
        weights: where each weight begins and ends: one mistake in eight is in
            those, all others are elsewhere.
        rng: what to draw from.
    """
    starts = [0, *(end for _, end in weights)]
    ends = [*(start for start, _ in weights), len(data)]
    structure = [
        i for start, end in zip(starts, ends) for i in range(start, end, 2)
    ]
    new = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.choice(structure)
        if rng.random() < 0.5:  # Rather where something is written.
            for _ in range(20):
                if any(data[at : at + 2]):
                    break
                at = rng.choice(structure)
        kind = rng.randrange(16)
        other = rng.choice(structure)
        size = rng.choice([1, 2, 4, 8, 16, 40])
        if kind < 4:
            at += rng.randrange(2)
            new[at] ^= 1 << rng.randrange(8)
        elif kind < 9:
            form = rng.choice("BHIQQQ")
            size = struct.calcsize(form)
            at = min(at // size * size, len(new) - size)
            (old,) = struct.unpack_from(f"<{form}", new, at)
            number = rng.choice(
                [
                    *(0, 1, -1, old + 1, old - 4, old + 8, old * 2),
                    *(len(data), other, other // 8 * 8, rng.getrandbits(64)),
                    rng.choice(weights)[0],
                ]
            )
            struct.pack_into(f"<{form}", new, at, number % 256**size)
        elif kind < 11:
            new[at : at + size] = data[other : other + size]
        elif kind == 11:
            new[at : at + size] = bytes(len(new[at : at + size]))
        elif kind == 12:
            del new[rng.randrange(len(new)) :]
        elif kind == 13:
            del new[at : at + size]
        elif kind == 14:
            new[at:at] = rng.randbytes(size)
        else:
            start, end = rng.choice(weights)
            at = rng.randrange(start, end)
            new[at : at + 1] = rng.randbytes(1)
        if len(new) < len(data):
            break
    return bytes(new)
