"""Images that aren't photos, from a folder to a preset, by commands."""

import json

import numpy as np
import pytest

import kerassl
from kerassl.cli.main import main
from kerassl.run_folder import read_settings
from tests.backends import once
from tests.data.made import bands, dicom, tiff

pytestmark = once

PRETRAIN = "--encoder resnet_nano --recipe cpu --epochs 1 --batch-size 8"


def satellite(folder):
    for i, pixels in enumerate(bands(24, size=16, top=10_000)):
        split = "train" if i < 16 else "test"
        tiff(folder / split / "ab"[i % 2] / f"{i}.tif", pixels)


def xray(folder):
    for i, pixels in enumerate(bands(24, size=16, channels=1, top=4000)):
        split = "train" if i < 16 else "test"
        dicom(
            folder / split / "ab"[i % 2] / f"{i}.dcm",
            pixels[..., 0],
            WindowCenter=2000,
            WindowWidth=4000,
        )


@pytest.mark.parametrize(
    "make, channels, options",
    [(satellite, 6, ["--range", "0%,100%"]), (xray, 1, [])],
)
def test_from_a_folder_to_a_preset(tmp_path, capsys, make, channels, options):
    make(tmp_path / "images")
    data = f"folder:{tmp_path / 'images'}"
    run, preset = str(tmp_path / "run"), str(tmp_path / "preset")
    arguments = ["pretrain", "simclr", "--data", data, "--output", run]
    arguments += ["--image-size", "16", *PRETRAIN.split(), *options]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert ("any_channels" in told.err) == (channels == 6)
    settings = read_settings(run)
    # Its own normalization, and the range in numbers.
    assert len(settings["recipe"]["normalization"]["mean"]) == channels
    if channels == 6:
        assert len(settings["value_range"]["low"]) == 6
        assert "becomes 0 to 255" in told.out
    again = ["pretrain", "--resume", "--output", run, "--epochs", "2"]
    assert main(again) == 0
    changed = [*again, "--range", "0,1"]
    assert main(changed) == 2
    assert main(["evaluate", run, "--data", data, "--k", "3"]) == 0
    assert main(["report", run, "--images", "4"]) == 0
    report = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/webp" in report
    if channels == 6:
        shown = ["report", run, "--images", "4", "--channels"]
        assert main([*shown, "5,4,3"]) == 0
        assert main([*shown, "6"]) == 2
        assert "channels 0 to 5" in capsys.readouterr().err
    save = ["presets", "save", run, preset, "--data-name", "tiles"]
    assert main(save) == 0
    assert main(["presets", "verify", preset]) == 0
    info = json.loads((tmp_path / "preset" / "kerassl.json").read_text())
    assert info["datasets"] == ["tiles"]
    assert info["value_range"] == settings.get("value_range")
    assert info["image_shape"] == [16, 16, channels]
    features = []
    for source in (run, preset):
        output = str(tmp_path / "features.npz")
        assert main(["embed", source, data, "--output", output]) == 0
        features.append(np.load(output)["features"])
        (tmp_path / "features.npz").unlink()
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)
    encoder = kerassl.load_encoder(preset)
    loaded = kerassl.data.load(
        data, image_size=16, value_range=settings.get("value_range")
    )
    np.testing.assert_allclose(
        kerassl.encoders.embed(encoder, loaded), features[0], atol=1e-5
    )


def test_gray_images_for_an_encoder_of_colors(tmp_path, capsys):
    encoder = kerassl.encoders.build("resnet_nano", (16, 16, 3))
    encoder.save(tmp_path / "encoder.keras")
    pixels = (bands(4, size=16, channels=1) // 257).astype("uint8")
    np.savez(tmp_path / "gray.npz", images=pixels)
    output = tmp_path / "features.npy"
    source, data = str(tmp_path / "encoder.keras"), str(tmp_path / "gray.npz")
    assert main(["embed", source, data, "--output", str(output)]) == 0
    wanted = kerassl.encoders.embed(encoder, np.repeat(pixels, 3, -1))
    np.testing.assert_allclose(np.load(output), wanted, atol=1e-5)
    np.savez(tmp_path / "six.npz", images=np.repeat(pixels, 6, -1))
    data = str(tmp_path / "six.npz")
    assert main(["embed", source, data, "--output", f"{output}.npy"]) == 2
    assert "3 channels" in capsys.readouterr().err


def test_encoders_of_many_channels_need_a_normalization():
    with pytest.raises(ValueError, match="6 channels.*kerassl data stats"):
        kerassl.encoders.build("resnet_nano", (16, 16, 6))
    with pytest.raises(ValueError, match="normalization.mean"):
        kerassl.SimCLR.from_recipe("cpu", image_shape=(16, 16, 6), steps=2)
    model = kerassl.SimCLR.from_recipe(
        "cpu",
        image_shape=(16, 16, 6),
        steps=2,
        encoder="resnet_nano",
        normalization={"mean": [0.2] * 6, "std": [0.1] * 6},
    )
    assert model.encoder.input_shape == (None, 16, 16, 6)
