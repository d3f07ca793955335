"""Images of any channels and bits: files, arrays and ranges."""

import io
import json
import pathlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kerassl.data
from kerassl.augmentation.crops import CropPlan
from kerassl.augmentation.operations import RandomResizedCrop
from kerassl.cli.main import main
from kerassl.data.decoders import RGB
from kerassl.data.image_files import read_header, read_pixels
from kerassl.data.load import peek_size
from kerassl.data.planes import Planes
from kerassl.value_range import Percentiles, ValueRange, parse_range
from tests.backends import examples, once
from tests.data.made import bands, deep_png, dicom, tiff

pytestmark = once  # Nothing here depends on the backend.


# === Ranges ===

finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=examples(40))
@given(
    low=finite,
    span=st.floats(0.0625, 1e6, width=32),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "int32", "float32"]),
    seed=st.integers(0, 99),
)
def test_levels_are_linear_and_clipped(low, span, dtype, seed):
    found = ValueRange((low,), (low + span,))
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(low - span, low + 2 * span, (4, 5, 3))
    if dtype != "float32":
        info = np.iinfo(dtype)
        pixels = np.clip(np.rint(pixels), info.min, info.max)
    pixels = pixels.astype(dtype)
    levels = found.levels(pixels)
    assert levels.dtype == "float32" and levels.shape == pixels.shape
    wanted = 255 * (pixels.astype("float64") - low) / span
    # float32 keeps 24 bits of what is subtracted.
    near = 0.01 + 255 * 1e-6 * (abs(low) + span) / span
    np.testing.assert_allclose(levels, np.clip(wanted, 0, 255), atol=near)


@settings(max_examples=examples(20))
@given(
    pairs=st.lists(
        st.tuples(finite, st.floats(1, 1e6, width=32)), min_size=1, max_size=16
    )
)
def test_ranges_survive_json(pairs):
    lows, spans = zip(*pairs)
    found = ValueRange(lows, tuple(a + b for a, b in pairs))
    assert parse_range(json.loads(json.dumps(found.to_dict()))) == found
    assert parse_range((found.low, found.high)) == found


def test_ranges_as_people_state_them():
    assert parse_range("0,10000") == parse_range((0, 10_000))
    assert parse_range(" -160, 240") == ValueRange((-160.0,), (240.0,))
    assert parse_range("1%, 99%") == Percentiles(1, 99)
    assert parse_range(("1%", "99%")) == Percentiles(1, 99)
    for wrong in ("1", "5,1", "a,b", "0,nan", "99%,1%", "0,1,2", "0%,101%"):
        with pytest.raises(ValueError, match="range is LOW,HIGH.*1%,99%"):
            parse_range(wrong)


def test_each_channel_has_its_range():
    pixels = np.array([[[10, 1000], [20, 3000]]], "uint16")
    levels = ValueRange((10, 1000), (20, 3000)).levels(pixels)
    np.testing.assert_array_equal(levels, [[[0, 0], [255, 255]]])
    with pytest.raises(ValueError, match="each of 2 channels.* 3 channels"):
        ValueRange((0, 0), (1, 1)).levels(np.zeros((1, 1, 3)))


# === Files ===


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 6, 16])
def test_tiff_is_read_as_it_is(tmp_path, dtype, channels):
    pixels = (bands(channels=channels)[0] // 256).astype(dtype)
    path = tiff(tmp_path / "x.tif", pixels)
    header = read_header(path)
    assert (header.height, header.width) == (20, 20)
    assert (header.channels, header.dtype) == (channels, dtype)
    assert header.is_photo == (dtype == "uint8" and channels == 1)
    np.testing.assert_array_equal(read_pixels(path).values, pixels)


def test_tiff_in_other_layouts(tmp_path):
    pixels = bands()[0]
    first = np.moveaxis(pixels, -1, 0)
    for name, values, options in (
        ("planes", first, {"planarconfig": "separate"}),
        ("pages", first, {"planarconfig": None}),
        ("imagej", first, {"planarconfig": None, "imagej": True}),
        ("big", pixels, {"bigtiff": True, "byteorder": ">"}),
        ("zip", pixels, {"compression": "zlib"}),
        ("tiles", pixels, {"tile": (16, 16)}),
    ):
        path = tiff(tmp_path / f"{name}.tif", values, **options)
        assert read_header(path).channels == 6, name
        np.testing.assert_array_equal(read_pixels(path).values, pixels, name)
        # As in a tar file.
        file = io.BytesIO(path.read_bytes())
        np.testing.assert_array_equal(read_pixels(file).values, pixels, name)
    white = tiff(
        tmp_path / "white.tif", pixels[..., :1], photometric="miniswhite"
    )
    found = read_pixels(white).levels(None)
    np.testing.assert_allclose(found, 255 - pixels[..., :1] / 257, atol=1e-3)
    stack = np.zeros((5, 6, 20, 20), "uint16")
    path = tiff(tmp_path / "stack.tif", stack, planarconfig=None)
    with pytest.raises(ValueError, match=r"axes \w+.*\(5, 6, 20, 20\)"):
        read_pixels(path)


def test_photos_stay_photos(tmp_path):
    photo = (bands(channels=3)[0] // 256).astype("uint8")
    tiff(tmp_path / "rgb.tif", photo, photometric="rgb")
    Image.fromarray(photo).save(tmp_path / "rgb.png")
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    assert data.images.dtype == "uint8" and data.images.decoder == RGB()
    np.testing.assert_array_equal(data.images[0], photo)
    np.testing.assert_array_equal(data.images[1], photo)
    assert data.value_range is None


@pytest.mark.parametrize("value_range", [None, (0, 255)])
@pytest.mark.parametrize("orientation, turns", [(3, 2), (6, 3), (8, 1)])
def test_photos_are_turned_once(tmp_path, value_range, orientation, turns):
    photo = (bands(size=30, channels=3)[0, :20] // 256).astype("uint8")
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        Image.fromarray(photo).save(tmp_path / f"x.{suffix}", exif=exif)
    upright = np.rot90(photo, turns)
    data = kerassl.data.load(
        f"folder:{tmp_path}",
        image_size=upright.shape[:2],
        value_range=value_range,
    )
    for image in data.images[:]:
        np.testing.assert_allclose(image, upright, atol=1e-3)


@pytest.mark.parametrize(
    "photometric, extra, channels, lost",
    [
        ("rgb", ["unspecified"], 4, ""),  # Such as near infrared.
        ("rgb", ["unassalpha"], 3, "transparency (ignored)"),
        ("rgb", ["assocalpha"], 3, "transparency (ignored)"),
        ("minisblack", ["unspecified"] * 3, 4, ""),
        ("minisblack", ["unspecified"] * 2, 3, ""),
        ("separated", None, 3, "CMYK colors"),
    ],
)
def test_samples_of_8_bits(tmp_path, photometric, extra, channels, lost):
    samples = 3 if extra and len(extra) == 2 else 4
    pixels = (bands(channels=samples)[0] // 256).astype("uint8")
    pixels[..., 3:] = 255  # Others change colors, if that is associated.
    options = {"photometric": photometric, "extrasamples": extra}
    path = tiff(tmp_path / "x.tif", pixels, **options)
    header = read_header(path)
    assert (header.channels, header.dtype) == (channels, "uint8")
    assert header.is_photo == bool(lost) and lost in " ".join(header.lost)
    found = read_pixels(path).values
    if photometric == "separated":
        assert found.shape == (20, 20, 3)
    else:
        np.testing.assert_array_equal(found, pixels[..., :channels])
    for value_range in (None, (0, 255)):
        data = kerassl.data.load(
            f"folder:{tmp_path}", image_size=20, value_range=value_range
        )
        np.testing.assert_allclose(data.images[0], found, atol=1e-3)
        assert lost in " ".join(data.notes)


def test_16_bits_in_png_are_kept(tmp_path):
    pixels = bands(channels=1)[0]
    Image.fromarray(pixels[..., 0]).save(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes((tmp_path / "x.png").read_bytes())
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    assert data.image_shape == (20, 20, 1)
    assert data.value_range == ValueRange((0,), (65535,))
    np.testing.assert_allclose(data.images[0], pixels / 257, atol=1e-3)
    # Repeated for an encoder of colors.
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20, channels=3)
    np.testing.assert_allclose(
        data.images[1], pixels.repeat(3, -1) / 257, atol=1e-3
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bits_of_color_and_transparency_are_kept(tmp_path, channels):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2**16, (20, 24, channels)).astype("uint16")
    path = deep_png(tmp_path / "x.png", pixels)
    wanted = pixels[..., : 3 if channels > 2 else 1]
    header = read_header(path)
    assert (header.channels, header.dtype) == (wanted.shape[-1], "uint16")
    np.testing.assert_array_equal(read_pixels(path).values, wanted)
    # As in a tar file.
    file = io.BytesIO(path.read_bytes())
    np.testing.assert_array_equal(read_pixels(file).values, wanted)
    data = kerassl.data.load(
        f"folder:{tmp_path}", image_size=(20, 24), value_range=(0, 10_000)
    )
    levels = np.clip(wanted * 0.0255, 0, 255)
    np.testing.assert_allclose(data.images[0], levels, atol=1e-3)


def test_16_bits_that_become_8_are_named(tmp_path, caplog):
    deep_png(tmp_path / "a.png", bands(channels=3)[0])
    deep = bands(channels=3)[0].astype(">u2")
    (tmp_path / "b.ppm").write_bytes(b"P6 20 20 65535\n" + deep.tobytes())
    image = Image.fromarray(bands(channels=1)[0, ..., 0])
    image.save(tmp_path / "e.jp2")
    image.convert("RGB").save(tmp_path / "f.jp2")  # 8 bits.
    Image.new("RGB", (20, 20)).save(tmp_path / "c.png")  # It makes them RGB.
    kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    assert "3 with 16 bits a channel (8 are kept)" in caplog.text


def test_arrays_as_files(tmp_path):
    pixels = bands(2)
    np.save(tmp_path / "a.npy", pixels[0])
    np.save(tmp_path / "b.npy", np.moveaxis(pixels[1], -1, 0))
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    np.testing.assert_allclose(data.images[:], pixels / 257, atol=1e-3)
    # Beside photos, arrays are something else.
    Image.new("RGB", (20, 20)).save(tmp_path / "c.png")
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    assert data.images.shape == (1, 20, 20, 3)
    assert any("2 .npy" in note for note in data.notes)
    np.save(tmp_path / "words.npy", np.array(["a"]))
    with pytest.raises(ValueError, match="not of pixels"):
        read_pixels(tmp_path / "words.npy")


@pytest.mark.parametrize(
    "shape, size",
    [
        ((3, 16, 16), (16, 16, 3)),
        ((1, 8, 8), (8, 8, 1)),
        ((3, 16, 20), (16, 20, 3)),
        # These may be rows, columns and channels.
        ((3, 16, 12), (3, 16, 12)),
        ((6, 16, 16), (6, 16, 16)),
        ((3, 3, 3), (3, 3, 3)),
        ((3, 1, 1), (3, 1, 1)),
    ],
)
def test_which_axis_of_an_array_is_that_of_channels(tmp_path, shape, size):
    pixels = np.arange(np.prod(shape), dtype="uint16").reshape(shape)
    np.save(tmp_path / "x.npy", pixels)
    header = read_header(tmp_path / "x.npy")
    assert (header.height, header.width, header.channels) == size
    if shape != size:
        pixels = np.moveaxis(pixels, 0, -1)
    found = read_pixels(tmp_path / "x.npy").values
    np.testing.assert_array_equal(found, pixels)


def test_the_header_of_an_array_is_all_that_is_read():
    pixels = np.zeros((3, 500, 400), ">u2")
    file = io.BytesIO()
    np.save(file, pixels)
    read = []

    class Counted(io.BytesIO):
        def read(self, *size):
            read.append(super().read(*size))
            return read[-1]

    header = read_header(Counted(file.getvalue()))
    found = header.height, header.width, header.channels, header.dtype
    assert found == (500, 400, 3, "uint16")
    assert sum(map(len, read)) < 1000


# === DICOM ===


def read_dicom(path, value_range=None):
    return read_pixels(path).levels(value_range)[..., 0]


def test_dicom_has_its_window(tmp_path):
    stored = np.arange(400, dtype="int16").reshape(20, 20)
    hounsfield = {"RescaleSlope": "2", "RescaleIntercept": "-100"}
    values = 2 * stored - 100.0
    window = {"WindowCenter": "200", "WindowWidth": "401"}
    path = dicom(tmp_path / "a.dcm", stored, **hounsfield, **window)
    # C.11.2.1.2: from 199.5 - 200 to 199.5 + 200.
    wanted = np.clip((values + 0.5) / 400 * 255, 0, 255)
    np.testing.assert_allclose(read_dicom(path), wanted, atol=1e-3)
    # A range that is stated is one of rescaled values.
    stated = np.clip((values + 160) / 400 * 255, 0, 255)
    found = read_dicom(path, ValueRange((-160,), (240,)))
    np.testing.assert_allclose(found, stated, atol=1e-3)
    dark = dicom(
        tmp_path / "b.dcm",
        stored,
        PhotometricInterpretation="MONOCHROME1",
        **hounsfield,
        **window,
    )
    np.testing.assert_allclose(read_dicom(dark), 255 - wanted, atol=1e-3)
    # Several windows: the first.
    many = dict(WindowCenter=["200", "0"], WindowWidth=["401", "1"])
    path = dicom(tmp_path / "c.dcm", stored, **hounsfield, **many)
    np.testing.assert_allclose(read_dicom(path), wanted, atol=1e-3)


def test_dicom_without_a_window_has_its_bits(tmp_path):
    stored = np.array([[0, 4095], [1024, 2048]], "uint16")
    path = dicom(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read_dicom(path), stored / 4095 * 255, atol=0.01)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"NumberOfFrames": 2}, "2 frames: write each to a file"),
        ({"PhotometricInterpretation": "HSV"}, "color space HSV"),
        (
            {"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "SIGMOID"},
            "SIGMOID: state --range",
        ),
    ],
)
def test_dicom_that_is_refused(tmp_path, fields, words):
    path = dicom(tmp_path / "a.dcm", np.zeros((4, 4), "uint16"), **fields)
    with pytest.raises(ValueError, match=words):
        read_dicom(path)


def test_frames_of_dicom_as_the_page_writes_them(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parents[2] / "docs" / "data.md"
    _, after = page.read_text().split("### DICOM files of several frames")
    block = re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]
    # Patients are folders; their files have the same names.
    for i, patient in enumerate(("p1", "p2")):
        pixels = np.full((6, 5), i, "uint16")
        dicom(tmp_path / "scans" / patient / "1-01.dcm", pixels)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    frames = sorted((tmp_path / "frames").iterdir())
    assert [np.load(frame).max() for frame in frames] == [0, 1]


def test_dicom_in_color(tmp_path):
    rng = np.random.default_rng(0)
    # Smooth, as a conversion rounds.
    colors = (bands(channels=3)[0] // 256).astype("uint8")
    rgb = {"PhotometricInterpretation": "RGB"}
    path = dicom(tmp_path / "rgb.dcm", colors, **rgb)
    header = read_header(path)
    assert (header.channels, header.dtype) == (3, "uint8")
    found = read_pixels(path).levels(None)
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found, colors)
    deep = rng.integers(0, 4096, (20, 20, 3)).astype("uint16")
    path = dicom(tmp_path / "deep.dcm", deep, BitsStored=12, HighBit=11, **rgb)
    found = read_pixels(path).levels(None)
    np.testing.assert_allclose(found, deep / 4095 * 255, atol=0.01)
    ycc = np.asarray(Image.fromarray(colors).convert("YCbCr"))
    path = dicom(
        tmp_path / "ycc.dcm", ycc, PhotometricInterpretation="YBR_FULL"
    )
    found = read_pixels(path).values.astype(int)
    assert np.abs(found - colors).max() <= 3
    table = rng.integers(0, 2**16, (3, 256)).astype("uint16")
    names = ("Red", "Green", "Blue")
    fields = {
        f"{name}PaletteColorLookupTableData": table[i].tobytes()
        for i, name in enumerate(names)
    } | {
        f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16]
        for name in names
    }
    numbers = rng.integers(0, 256, (20, 20)).astype("uint8")
    path = dicom(
        tmp_path / "palette.dcm",
        numbers,
        PhotometricInterpretation="PALETTE COLOR",
        **fields,
    )
    assert read_header(path).channels == 3
    wanted = np.moveaxis(table[:, numbers], 0, -1)
    np.testing.assert_allclose(
        read_pixels(path).levels(None), wanted / 257, atol=1e-3
    )
    path = dicom(tmp_path / "jpeg.dcm", colors, **rgb)
    import pydicom

    made = pydicom.dcmread(path)
    made.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    made.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    made.save_as(path)
    with pytest.raises(ImportError, match="JPEG-LS.*pylibjpeg"):
        read_pixels(path)


def test_folder_of_color_dicom(tmp_path):
    for i in range(2):
        colors = np.full((20, 20, 3), (10 + i, 100, 200), "uint8")
        path = tmp_path / f"{i}.dcm"
        dicom(path, colors, PhotometricInterpretation="RGB")
    dicom(tmp_path / "many.dcm", colors[..., 0], NumberOfFrames=4)
    data = kerassl.data.load(
        f"folder:{tmp_path}", image_size=16, max_unreadable=0.5
    )
    assert data.image_shape == (16, 16, 3)
    np.testing.assert_array_equal(data.images[1][0, 0], (11, 100, 200))
    assert "1 ValueError: DICOM of 4 frames" in data.notes[0]


def test_folder_of_dicom(tmp_path):
    for i in range(3):
        stored = np.full((30, 20), 100 * i, "uint16")
        path = tmp_path / "ab"[i % 2] / f"{i}.dcm"
        dicom(path, stored, WindowCenter=127.5, WindowWidth=256)
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=16)
    assert data.class_names == ("a", "b")
    assert data.image_shape == (16, 16, 1) and data.images.dtype == "float32"
    assert data.value_range is None  # Each file has its own.
    found = np.sort(np.asarray(data.images).mean((1, 2, 3)))
    np.testing.assert_allclose(found, [0.5, 100.5, 200.5], atol=1)


# === Folders ===


@pytest.fixture
def satellite(tmp_path):
    for i, pixels in enumerate(bands(6, size=40)):
        tiff(tmp_path / "ab"[i % 2] / f"{i}.tif", pixels)
    return tmp_path


def test_folder_of_tiff(satellite):
    data = kerassl.data.load(f"folder:{satellite}", image_size=40)
    assert data.images.shape == (6, 40, 40, 6)
    assert data.images.dtype == data.images[:1].dtype == "float32"
    assert data.value_range == ValueRange((0,), (65535,))
    pixels = bands(6, size=40)[[0, 2, 4, 1, 3, 5]]
    np.testing.assert_allclose(data.images[:], pixels / 257, atol=1e-3)
    assert peek_size(f"folder:{satellite}") == (40, True)
    small = kerassl.data.load(f"folder:{satellite}", image_size=20)
    means = np.asarray(small.images).mean((1, 2))
    np.testing.assert_allclose(means, pixels.mean((1, 2)) / 257, rtol=0.01)


def test_range_of_a_folder(satellite):
    def load(value_range):
        return kerassl.data.load(
            f"folder:{satellite}", image_size=40, value_range=value_range
        )

    data = load("0%,100%")
    assert len(data.value_range.low) == 6
    found = np.asarray(data.images)
    np.testing.assert_allclose(found.min((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(found.max((0, 1, 2)), 255, atol=1e-3)
    again = load(data.value_range.to_dict())
    np.testing.assert_array_equal(again.images[:], found)
    with pytest.raises(ValueError, match="2 pairs.*6 channels"):
        load(([0, 0], [1, 1]))


def test_what_is_not_read_of_an_image_is_named(tmp_path, caplog):
    tifffile = pytest.importorskip("tifffile")
    one, other = bands(channels=1)[0, ..., 0], np.zeros((9, 9), "uint16")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(one)
        file.write(other)
    tiff(tmp_path / "b.tif", one[..., None])
    deep_png(tmp_path / "c.png", np.stack([one, one], -1))
    data = kerassl.data.load(f"folder:{tmp_path}", image_size=20)
    np.testing.assert_allclose(
        data.images[:, ..., 0], np.stack([one] * 3) / 257, atol=1e-3
    )
    (note,) = data.notes
    assert note in caplog.text
    assert "1 with several series (the first is read)" in note
    assert "1 with transparency (ignored)" in note


def test_other_images_are_named_and_counted(satellite, caplog):
    tiff(satellite / "a" / "four.tif", bands(channels=4)[0])
    tiff(satellite / "a" / "float.tif", np.ones((9, 9, 6), "float32"))
    data = kerassl.data.load(
        f"folder:{satellite}", image_size=8, max_unreadable=0.5
    )
    assert len(data.images) == 6
    (note,) = data.notes
    assert "2 of 8 images" in note
    assert "1 ValueError: 4 channels, where 6 are needed" in note
    assert "1 ValueError: float32 pixels" in note
    assert "four.tif" in caplog.text
    assert main(["data", "check", f"folder:{satellite}"]) == 1
    with pytest.raises(ValueError, match="takes images of 3.* these have 4, 6"):
        kerassl.data.load(f"folder:{satellite}", channels=3)


def test_unknown_ranges_are_asked_for(tmp_path):
    for i in range(2):
        tiff(tmp_path / f"{i}.tif", np.full((8, 8, 2), 0.5, "float32"))
    with pytest.raises(ValueError, match="float32 pixels.*--range"):
        kerassl.data.load(f"folder:{tmp_path}", image_size=8)
    data = kerassl.data.load(
        f"folder:{tmp_path}", image_size=8, value_range=(0, 1)
    )
    np.testing.assert_allclose(data.images[:], 127.5, atol=1e-3)
    tiff(tmp_path / "2.tif", np.full((8, 8, 2), np.nan, "float32"))
    with pytest.raises(ValueError, match=r"2.tif' \(ValueError: NaN"):
        kerassl.data.load(
            f"folder:{tmp_path}", image_size=8, value_range=(0, 1)
        )


@pytest.mark.parametrize(
    "kind, value_range, words",
    [
        ("photos", (0, 10_000), "0 to 10000.*almost black.*--range=0,255"),
        ("photos", (0, 1), "0 to 1,.*almost white.*--range=0,255"),
        ("array", (0, 10_000), "0 to 10000.*almost black.*--range=0,255"),
        ("photos", (0, 255), None),
        ("array", (0, 300), None),
        ("array", None, None),
        ("photos", "1%,99%", None),
    ],
)
def test_a_range_of_other_units_is_named(
    tmp_path, caplog, kind, value_range, words
):
    rng = np.random.default_rng(0)
    photos = rng.integers(20, 240, (4, 20, 20, 3)).astype("uint8")
    if kind == "array":
        source = str(tmp_path / "x.npy")
        np.save(source, photos)
    else:
        source = f"folder:{tmp_path}"
        for i, photo in enumerate(photos):
            Image.fromarray(photo).save(tmp_path / f"{i}.png")
    kerassl.data.load(source, image_size=20, value_range=value_range)
    found = [r.getMessage() for r in caplog.records if "--range" in r.msg]
    assert len(found) == (words is not None)
    if words is not None:
        assert re.search(f"are 20 to 239.*{words}", found[0])


def test_crops_are_those_of_photos(tmp_path):
    photo = (bands(size=64, channels=3)[0] // 256).astype("uint8")
    Image.fromarray(photo).save(tmp_path / "x.png")
    crop = RandomResizedCrop(16, interpolation="bicubic")
    plan = CropPlan({"view_1": crop, "view_2": crop})
    rng = np.random.default_rng(0)
    for _ in range(4):
        uniforms = rng.random(plan.num_uniforms).tolist()

        def cuts(height, width, uniforms=uniforms):
            return plan.cuts(uniforms, height, width)

        wanted = RGB().cuts(tmp_path / "x.png", cuts)
        for decoder in (Planes(3, "uint8"), Planes(3, "float32")):
            made = decoder.cuts(tmp_path / "x.png", cuts)
            for one, other in zip(made, wanted, strict=True):
                assert one.dtype == decoder.dtype
                np.testing.assert_allclose(
                    one.astype("float32"), other.astype("float32"), atol=1
                )


# === Arrays ===


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_of_any_channels(tmp_path, suffix):
    import h5py

    pixels = bands(4, size=8)
    path = tmp_path / f"x.{suffix}"
    if suffix == "npz":
        np.savez(path, images=pixels, labels=np.arange(4))
    else:
        with h5py.File(path, "w") as file:
            file["images"], file["labels"] = pixels, np.arange(4)
    data = kerassl.data.load(str(path))
    assert data.image_shape == (8, 8, 6)
    assert data.value_range == ValueRange((0,), (65535,))
    np.testing.assert_allclose(data.images, pixels / 257, atol=1e-3)
    data = kerassl.data.load(str(path), value_range="0,20000")
    wanted = np.clip(pixels / 20_000 * 255, 0, 255)
    np.testing.assert_allclose(data.images, wanted, atol=1e-3)
    small = kerassl.data.load(str(path), image_size=4)
    assert small.images.shape == (4, 4, 4, 6)


def test_arrays_whose_range_is_unknown(tmp_path):
    path = str(tmp_path / "x.npy")
    np.save(path, np.full((3, 8, 8, 4), -5, "int16"))
    with pytest.raises(ValueError, match="int16 pixels.*--range"):
        kerassl.data.load(path)
    data = kerassl.data.load(path, value_range=(-10, 0))
    np.testing.assert_allclose(data.images, 127.5)
    np.save(path, np.random.default_rng(0).random((3, 8, 8, 2), "float32"))
    with pytest.raises(ValueError, match=r"scaled to \[0, 1\].*--range"):
        kerassl.data.load(path)
    assert kerassl.data.load(path, value_range="0,1").images.max() > 200
    np.save(path, np.zeros((3, 8, 8, 17), "uint8"))
    with pytest.raises(ValueError, match="1 to 16 channels"):
        kerassl.data.load(path)


def test_statistics_say_the_range(satellite, capsys):
    source = f"folder:{satellite}"
    assert main(["data", "stats", source, "--range", "0,60000"]) == 0
    told = capsys.readouterr().out
    assert "6 channels" in told and "of values from 0 to 60000" in told
    assert main(["data", "check", source]) == 0
    assert "6 channels of uint16 (6)" in capsys.readouterr().out
