"""Content-addressed storage for the xet client.

The formats are those of the public specification of xet
(https://huggingface.co/docs/xet). A *xorb* is a row of compressed chunks; a
*shard* lists for each file which chunks of which xorbs it is made of.
"""

import dataclasses
import itertools
import os
import re
import struct
import tempfile
from pathlib import Path

from tests.hub_server.repository import HubError

HEADER = 48  # bytes of a shard's header, and of each entry
END = b"\xff" * 32
HAS_VERIFICATION = 1 << 31
HAS_SHA256 = 1 << 30
CHUNK_HEADER = 8


def hash_text(data: bytes) -> str:
    """Returns xet's text form of a hash: four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", data))


@dataclasses.dataclass(frozen=True)
class Segment:
    """Chunks of a xorb, from `start` to before `end`."""

    xorb: str
    start: int
    end: int
    size: int


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Where a chunk lies in its xorb, and its size when unpacked."""

    first: int
    last: int
    size: int


def parse_shard(data: bytes) -> dict[str, tuple[str | None, list[Segment]]]:
    """Returns the SHA-256 and the segments of each file, by xet's hash."""
    files = {}
    position = HEADER
    while data[position : position + 32] != END:
        name = hash_text(data[position : position + 32])
        flags, count = struct.unpack_from("<II", data, position + 32)
        position += HEADER
        segments = []
        for _ in range(count):
            xorb = hash_text(data[position : position + 32])
            _, size, start, end = struct.unpack_from("<4I", data, position + 32)
            segments.append(Segment(xorb, start, end, size))
            position += HEADER
        if flags & HAS_VERIFICATION:
            position += HEADER * count
        sha256 = None
        if flags & HAS_SHA256:
            sha256 = hash_text(data[position : position + 32])
            position += HEADER
        files[name] = sha256, segments
    return files


def parse_xorb(data: bytes) -> list[Chunk]:
    """Returns the chunks of a xorb. A footer may follow them."""
    chunks = []
    position = 0
    while position + CHUNK_HEADER <= len(data) and data[position] == 0:
        stored = int.from_bytes(data[position + 1 : position + 4], "little")
        size = int.from_bytes(data[position + 5 : position + 8], "little")
        end = position + CHUNK_HEADER + stored
        chunks.append(Chunk(position, end - 1, size))
        position = end
    return chunks


class XetStorage:
    """Xorbs and shards, as clients sent them."""

    def __init__(self):
        self.xorbs: dict[str, bytes] = {}
        self.files: dict[str, list[Segment]] = {}
        self.by_sha256: dict[str, str] = {}

    def add_shard(self, data: bytes) -> None:
        """Takes over the files that a shard describes."""
        for name, (sha256, segments) in parse_shard(data).items():
            self.files[name] = segments
            if sha256:
                self.by_sha256[sha256] = name

    def reconstruction(self, name: str, wanted: str, url: str) -> dict:
        """Says which parts of which xorbs make a file.

        Args:
            name: xet's hash of the file.
            wanted: a header `Range`, or an empty string for all of it.
            url: where the xorbs are.
        """
        if name not in self.files:
            raise HubError(404, f"There is no file {name}")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        first = int(match[1]) if match else 0
        last = int(match[2]) if match and match[2] else 2**62
        terms, places, offset, position = [], {}, None, 0
        for segment in self.files[name]:
            chunks = parse_xorb(self.xorbs[segment.xorb])
            used = []
            for index in range(segment.start, segment.end):
                end = position + chunks[index].size
                if position <= last and end > first:
                    if offset is None:
                        offset = first - position
                    used.append(index)
                position = end
            if not used:
                continue
            span = {"start": used[0], "end": used[-1] + 1}
            terms.append(
                {
                    "hash": segment.xorb,
                    "unpacked_length": sum(chunks[i].size for i in used),
                    "range": span,
                }
            )
            places.setdefault(segment.xorb, []).append(
                {
                    "range": span,
                    "url": f"{url}/v1/xorbs/default/{segment.xorb}",
                    "url_range": {
                        "start": chunks[used[0]].first,
                        "end": chunks[used[-1]].last,
                    },
                }
            )
        if offset is None:
            raise HubError(416, f"The file has {position} bytes")
        return {
            "offset_into_first_range": offset,
            "terms": terms,
            "fetch_info": places,
        }

    def read(self, name: str, url: str) -> bytes:
        """Returns a whole file, unpacked by the xet client itself."""
        import hf_xet

        size = sum(segment.size for segment in self.files[name])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file")
            with hf_xet.XetSession().new_file_download_group(
                endpoint=url, token="-", token_expiry_unix_secs=2**40
            ) as group:
                info = hf_xet.XetFileInfo(name, size)
                group.start_download_file(info, os.fspath(path))
            return path.read_bytes()

    def flip_bit(self, name: str) -> None:
        """Changes one bit in the middle of a file's largest chunk."""
        segments = self.files[name]
        candidates = itertools.chain.from_iterable(
            (
                (chunk.last - chunk.first, segment.xorb, chunk)
                for chunk in parse_xorb(self.xorbs[segment.xorb])[
                    segment.start : segment.end
                ]
            )
            for segment in segments
        )
        _, xorb, chunk = max(candidates, key=lambda candidate: candidate[0])
        data = bytearray(self.xorbs[xorb])
        data[(chunk.first + chunk.last) // 2] ^= 1
        self.xorbs[xorb] = bytes(data)
