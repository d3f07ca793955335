"""Image files of other kinds than photos, for tests."""

import io
import struct
import zlib

import numpy as np
import pytest


def tiff(path, pixels, **options):
    """Writes `(H, W, C)` as one page, or as `options` of tifffile say."""
    tifffile = pytest.importorskip("tifffile")
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {"photometric": "minisblack", "planarconfig": "contig"}
    if pixels.shape[-1] == 1:
        pixels, usual = pixels[..., 0], {"photometric": "minisblack"}
    tifffile.imwrite(path, pixels, **(usual | options))
    return path


def deep_png(path, pixels):
    """Writes `(H, W, C)` of uint16: 2 to 4 channels, the last may be alpha."""
    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    # Each row has the filter "up": the difference to the row above.
    rows = pixels.astype(">u2").reshape(height, -1).view("uint8")
    rows = np.diff(rows, axis=0, prepend=np.zeros_like(rows[:1]))
    rows = np.pad(rows, [(0, 0), (1, 0)], constant_values=2)

    def chunk(name, content):
        sum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + sum

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )
    return path


def dicom(path, pixels, **fields):
    """Writes an image `(H, W)` or `(H, W, 3)` of uint8, uint16 or int16."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID = meta.MediaStorageSOPClassUID
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    bits = 8 * pixels.dtype.itemsize
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = bits
    made.HighBit = bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        setattr(made, name, value)
    made.PixelData = pixels.tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    path.write_bytes(file.getvalue())
    return path


def bands(count=1, size=20, channels=6, top=60_000, seed=0):
    """Smooth 16-bit images `(N, size, size, channels)`, bright to dark."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0.1, 1, (count, 2, 2, channels))
    share = np.linspace(0, 1, size)
    rows = np.stack([1 - share, share], -1)
    x = np.einsum("ra,nabc,sb->nrsc", rows, corners, rows)
    return (top * x * np.linspace(1, 0.2, channels)).astype("uint16")
