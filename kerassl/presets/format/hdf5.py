"""Reads the variant of HDF5 in which Keras writes weights.

The HDF5 library expects trusted files: on broken ones it may crash, hang or
use any amount of memory. By default h5py writes the oldest variant of the
format (version 0, old groups, plain arrays), and Keras keeps that default. Only
this variant is read here: each address is checked, each block is read once, and
no two blocks may overlap. Arrays are views of the file's bytes.

Reference:
- [HDF5 File Format Specification, version
  3](https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html)
"""

import bisect
import math
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kerassl.presets.format.info import WEIGHTS, check
from kerassl.reading import shown

# Superblock 0 with addresses of 8 bytes, up to the base address.
START = bytes.fromhex("894844460d0a1a0a 0000000000080800 0400100000000000")
SUPERBLOCK = 96
# `START` says 16 and 4 entries; a node has room for twice as many.
TREE_NODE, SYMBOL_NODE, SYMBOL, HEAP = 544, 328, 40, 32
NOWHERE = 2**64 - 1
# IEEE float32, little endian, as a datatype message.
FLOAT32 = bytes.fromhex("11201f00 04000000 00002000 17080017 7f000000")
MOST_MESSAGES, MOST_RANK, MOST_LEVELS, LONGEST_NAME = 64, 8, 8, 1024
# Messages of an object's header.
SPACE, LINK_INFO, TYPE, EXTERNAL, LAYOUT = 1, 2, 3, 7, 8
LINK, FILTERS, CONTINUATION, SYMBOLS = 6, 11, 16, 17
READ = (SPACE, TYPE, LAYOUT, SYMBOLS)
LINKS = {0: "HardLink", 1: "SoftLink", 64: "ExternalLink"}


class Stored(NamedTuple):
    """An array in a file.

    Attributes:
        shape: tuple of ints.
        offset: int, where its bytes begin.
    """

    shape: tuple[int, ...]
    offset: int


def read_arrays(data: bytes | bytearray, most: int) -> dict[str, np.ndarray]:
    """Returns the float32 arrays in a file's bytes, by their path.

    Args:
        data: the content of the file. The arrays are views of it.
        most: int, the largest number of groups and arrays.

    Returns:
        A dict of arrays.

    Raises:
        PresetError: if the file is another variant of HDF5, or broken; if an
            array has another dtype or storage, or anything is there twice.
    """
    return {
        path: np.frombuffer(
            data, "<f4", math.prod(found.shape), found.offset
        ).reshape(found.shape)
        for path, found in _File(data, most).arrays().items()
    }


class _File:
    """The bytes of a file, and the blocks that were read."""

    def __init__(self, data: bytes | bytearray, most: int):
        self.data = data
        self.most = most
        self.starts: list[int] = []  # of the blocks that were read, sorted
        self.ends: list[int] = []
        self.addresses: set[int] = set()  # of objects

    def arrays(self) -> dict[str, Stored]:
        """Returns the arrays by their path."""
        head = self.block(0, SUPERBLOCK, "superblock")
        base, _, end, driver, _, root = struct.unpack_from("<6Q", head, 24)
        check(
            head[: len(START)] == START
            and (base, end, driver) == (0, len(self.data), NOWHERE),
            f"{WEIGHTS} is not an HDF5 file as Keras writes it, or is "
            "incomplete.",
        )
        found = {}
        groups = [("", self.header(root, ""))]
        while groups:
            path, messages = groups.pop()
            for name, address in self.links(path, messages):
                inner = f"{path}/{name}" if path else name
                messages = self.header(address, inner)
                if SYMBOLS in messages or LINK_INFO in messages:
                    groups.append((inner, messages))
                else:
                    check(
                        inner not in found,
                        f"{WEIGHTS}: {shown(inner)} is there twice.",
                    )
                    found[inner] = self.array(inner, messages)
        return found

    def block(self, start: int, size: int, what: str) -> memoryview:
        """Returns bytes that no other block may contain."""
        end = start + size
        check(
            end <= len(self.data),
            f"{WEIGHTS} is not an HDF5 file of Keras, or is incomplete: its "
            f"{what} would be at {start:,} to {end:,}.",
        )
        index = bisect.bisect(self.starts, start)
        check(
            size > 0
            and (index == 0 or self.ends[index - 1] <= start)
            and (index == len(self.starts) or end <= self.starts[index]),
            f"{WEIGHTS}: the {what} at {start:,} to {end:,} shares bytes with "
            "something else in the file.",
        )
        self.starts.insert(index, start)
        self.ends.insert(index, end)
        return memoryview(self.data)[start:end]

    def header(self, address: int, path: str) -> dict[int, bytes]:
        """Returns the messages of an object's header, one of each kind."""
        check(
            address not in self.addresses and len(self.addresses) < self.most,
            f"{WEIGHTS}: {shown(path)} is linked twice, or there are more "
            f"than {self.most} objects.",
        )
        check(
            address + 16 <= len(self.data),
            f"{WEIGHTS}: {shown(path)} isn't in the file.",
        )
        self.addresses.add(address)
        version, count, _, size = struct.unpack_from(
            "<BxHII", self.data, address
        )
        check(
            version == 1 and count <= MOST_MESSAGES,
            f"{WEIGHTS}: {shown(path)} has no header as Keras writes it.",
        )
        parts = [self.block(address, 16 + size, "header")[16:]]
        found: dict[int, bytes] = {}
        while parts:
            part, at = parts.pop(), 0
            while count and at + 8 <= len(part):
                count -= 1
                kind, size, flags = struct.unpack_from("<HHB", part, at)
                body = bytes(part[at + 8 : at + 8 + size])
                at += 8 + size
                check(
                    len(body) == size
                    and (kind != CONTINUATION or size >= 16)
                    # Neither shared with another object nor repeated.
                    and (kind not in READ or not (flags & 2 or kind in found)),
                    f"{WEIGHTS}: {shown(path)} has a broken header, or shares "
                    "parts of it.",
                )
                if kind == CONTINUATION:
                    start, size = struct.unpack_from("<2Q", body)
                    parts.append(self.block(start, size, "header"))
                found[kind] = body
        check(count == 0, f"{WEIGHTS}: {shown(path)} has a truncated header.")
        return found

    def links(
        self, path: str, messages: dict[int, bytes]
    ) -> Iterator[tuple[str, int]]:
        """Yields the names and the addresses of a group's members."""
        body = messages.get(SYMBOLS, b"")
        if len(body) < 16:
            # A newer kind of group, which may have external links.
            kind, text = _link(messages.get(LINK, b""))
            check(
                False,
                f"{WEIGHTS}: {shown(path)} is not a group as Keras writes "
                f"it: it may hold links, such as {kind} to "
                f"{shown(text)}. Weights must be in the file itself.",
            )
        tree, heap = struct.unpack_from("<2Q", body)
        head = self.block(heap, HEAP, "heap")
        size, _, address = struct.unpack_from("<3Q", head, 8)
        check(head[:5] == b"HEAP\0", f"{WEIGHTS}: {shown(path)} has no heap.")
        if size:
            self.block(address, size, "heap's names")
        names = (address, address + size)
        last = ""
        for entry in self.symbols(tree, path, MOST_LEVELS):
            offset, address, cache = struct.unpack_from("<2QI", entry)
            name = self.name(*names, offset)
            member = f"{path}/{name}" if path else name
            if cache == 2 or address == NOWHERE:
                (value,) = struct.unpack_from("<I", entry, 24)
                target = self.name(*names, value)
                check(
                    False,
                    f"{WEIGHTS}: {shown(member)} is SoftLink to "
                    f"{shown(target)}. Weights must be in the file itself.",
                )
            check(
                name > last,
                f"{WEIGHTS}: {shown(path)} has unsorted members.",
            )
            last = name
            yield name, address

    def name(self, start: int, end: int, offset: int) -> str:
        """Returns the name at an offset of a heap."""
        start += offset
        end = self.data.find(b"\0", start, min(end, start + LONGEST_NAME))
        check(end >= 0, f"{WEIGHTS}: a name isn't in its heap.")
        return bytes(self.data[start:end]).decode("utf-8", "backslashreplace")

    def symbols(self, address: int, path: str, levels: int) -> Iterator[Any]:
        """Yields the entries of a group, from its tree."""
        check(levels > 0, f"{WEIGHTS}: {shown(path)} is a group too deep.")
        if bytes(self.data[address : address + 4]) == b"SNOD":
            node = self.block(address, SYMBOL_NODE, "node")
            (count,) = struct.unpack_from("<H", node, 6)
            check(
                node[4] == 1 and count <= (SYMBOL_NODE - 8) // SYMBOL,
                f"{WEIGHTS}: {shown(path)} has a broken node.",
            )
            for i in range(count):
                yield node[8 + i * SYMBOL : 8 + (i + 1) * SYMBOL]
            return
        node = self.block(address, TREE_NODE, "tree")
        (count,) = struct.unpack_from("<H", node, 6)
        check(
            node[:5] == b"TREE\0" and count <= 32,
            f"{WEIGHTS}: {shown(path)} has a broken tree.",
        )
        for i in range(count):
            (child,) = struct.unpack_from("<Q", node, 32 + 16 * i)
            yield from self.symbols(child, path, levels - 1)

    def array(self, path: str, messages: dict[int, bytes]) -> Stored:
        """Returns the position of an array, which must be plain float32."""
        what = f"{WEIGHTS}: {shown(path)}"
        space, kind, layout = (
            messages.get(i, b"") for i in (SPACE, TYPE, LAYOUT)
        )
        check(
            len(space) >= 8 and len(kind) >= 8 and len(layout) >= 2,
            f"{what} is not an array.",
        )
        version, rank, flags = struct.unpack_from("<3B", space)
        check(
            version == 1
            and rank <= MOST_RANK
            and flags <= 1
            and len(space) >= 8 + 8 * rank * (1 + flags),
            f"{what} has no shape as Keras writes it.",
        )
        shape = struct.unpack_from(f"<{rank}Q", space, 8)
        check(
            kind[: len(FLOAT32)] == FLOAT32,
            f"{what} has the dtype {_dtype(kind)}, and must be float32.",
        )
        check(
            EXTERNAL not in messages,
            f"{what} is stored in other files (external storage).",
        )
        check(layout[:2] != b"\4\3", f"{what} is a virtual data set.")
        offset, size = NOWHERE, 0
        if layout[:2] == b"\3\1" and len(layout) >= 18:
            offset, size = struct.unpack_from("<2Q", layout, 2)
        check(
            FILTERS not in messages
            and offset != NOWHERE
            and 0 < size == 4 * math.prod(shape),
            f"{what} isn't stored as plain numbers: it is chunked, "
            "compressed or missing.",
        )
        self.block(offset, size, "weight")
        return Stored(shape, offset)


def _link(body: bytes) -> tuple[str, str]:
    """Returns the kind of a link and its target."""
    if len(body) < 4:  # It is in a heap, which isn't read.
        return "ExternalLink", "another file"
    kind = body[2] if body[1] & 8 else 0
    return LINKS.get(kind, "a link"), repr(body[3:])


def _dtype(kind: bytes) -> str:
    """Returns the name of a dtype from the start of its message."""
    size = int.from_bytes(kind[4:8], "little")
    letters = {0: "i" if kind[1] & 8 else "u", 1: "f"}
    letter = letters.get(kind[0] & 15)
    if letter is None or size not in (1, 2, 4, 8):
        return "object"
    try:
        return str(np.dtype(f"{'>' if kind[1] & 1 else '<'}{letter}{size}"))
    except TypeError:
        return "object"
