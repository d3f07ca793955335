"""Exported encoders, run by the programs that they are made for."""

import keras
import numpy as np
import pytest

from kerassl import encoders, export_formats, presets
from kerassl.cli.main import main
from kerassl.models import in_precision
from kerassl.presets import exports
from tests.backends import more
from tests.contracts.methods import simclr, tiny_encoder
from tests.encoders.test_adapt import features, pixels
from tests.layers.test_saved_positions import moved


def run_onnx(path, images):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path)
    (features,) = session.run(["features"], {"images": images})
    return features


def run_litert(path, images):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=str(path))
    images_in = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(images_in, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(images_in, images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_savedmodel(path, images):
    import tensorflow as tf

    program = tf.saved_model.load(str(path))
    return program.serve(images).numpy()


def run_torch_export(path, images):
    import torch

    program = torch.export.load(path).module()
    return program(torch.from_numpy(images)).detach().numpy()


RUNTIMES = {
    "onnx": run_onnx,
    "litert": run_litert,
    "savedmodel": run_savedmodel,
    "torch_export": run_torch_export,
}


def vit():
    return encoders.build("vit_nano", (16, 16, 3))


SMALL = "the smaller encoder"
ONCE = "onnx, which also runs PyTorch's export, and litert"


@pytest.mark.parametrize(
    "format, make",
    [
        ("onnx", tiny_encoder),
        ("litert", tiny_encoder),
        pytest.param("onnx", vit, marks=more(SMALL)),
        pytest.param("savedmodel", tiny_encoder, marks=more(ONCE)),
        pytest.param("torch_export", tiny_encoder, marks=more(ONCE)),
        pytest.param("litert", vit, marks=more(SMALL)),
    ],
)
def test_features_are_equal(format, make, tmp_path, capsys):
    encoder = make()
    encoder.save(tmp_path / "encoder.keras")
    shape = (3, *encoder.input_shape[1:])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    path = tmp_path / f"new/exported{export_formats.FORMATS[format].suffix}"
    words = [str(tmp_path / "encoder.keras"), "--output", str(path)]
    assert main(["export", *words, "--format", format]) == 0
    assert str(path) in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    found = RUNTIMES[format](path, images)
    expected = encoder.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.ptp(expected, axis=0).max() > 0.01


def test_what_exists_is_not_replaced(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        presets.export(tiny_encoder(), path, "onnx")
    # A folder that isn't a SavedModel is never replaced.
    with pytest.raises(FileExistsError, match="Choose another name"):
        presets.export(tiny_encoder(), tmp_path, "savedmodel", overwrite=True)
    assert path.read_text() == "mine"


@pytest.fixture
def saved_model(tmp_path, monkeypatch):
    """The folder of an exported encoder; the next has an empty program."""

    def write(source, path, format):
        path.mkdir()
        for name in ("variables", "assets"):
            (path / name).mkdir()
        for name in ("saved_model.pb", "fingerprint.pb"):
            (path / name).write_text("")

    monkeypatch.setattr(exports, "_run", write)
    monkeypatch.setattr(
        export_formats.importlib.util, "find_spec", lambda name: True
    )
    folder = tmp_path / "exported"
    presets.export(tiny_encoder(), folder, "savedmodel")
    (folder / "saved_model.pb").write_text("old")
    return folder


def test_a_savedmodel_is_replaced(saved_model):
    (saved_model / ".git").mkdir()
    encoder = tiny_encoder()
    presets.export(encoder, saved_model, "savedmodel", overwrite=True)
    assert (saved_model / "saved_model.pb").read_text() == ""
    assert (saved_model / ".git").exists()
    assert list(saved_model.parent.iterdir()) == [saved_model]


@pytest.mark.parametrize("late", [False, True])
def test_a_folder_with_other_files_is_kept(late, saved_model, monkeypatch):
    thesis = saved_model / "thesis.tex"
    if late:
        write = exports._run

        def appear(*args):
            write(*args)
            thesis.touch()

        monkeypatch.setattr(exports, "_run", appear)
    else:
        thesis.touch()
    with pytest.raises(FileExistsError, match="it holds thesis.tex"):
        presets.export(
            tiny_encoder(), saved_model, "savedmodel", overwrite=True
        )
    assert thesis.exists()
    assert (saved_model / "saved_model.pb").read_text() == "old"
    assert list(saved_model.parent.iterdir()) == [saved_model]


def test_files_of_the_working_directory_are_not_run(tmp_path, monkeypatch):
    variables = {}

    def run(words, env, **options):
        variables.update(env)
        raise OSError

    monkeypatch.setattr(exports.subprocess, "run", run)
    with pytest.raises(OSError):
        presets.export(tiny_encoder(), tmp_path / "a.pt2", "torch_export")
    assert variables["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    "format, name, message",
    [
        ("onx", "a.onnx", "There is no format 'onx'. Nearest: onnx"),
        ("onnx", "a.tflite", "must end with .onnx"),
    ],
)
def test_mistakes_are_named(format, name, message, tmp_path, capsys):
    words = ["export", "nowhere", "--format", format]
    assert main([*words, "--output", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        export_formats.importlib.util, "find_spec", lambda name: None
    )
    with pytest.raises(ImportError, match=r"onnxscript.*kerassl\[onnx\]"):
        export_formats.check_export(tmp_path / "a.onnx", "onnx")


@pytest.fixture
def given(monkeypatch):
    """The models that other processes would export."""
    found = []

    def run(source, path, format):
        found.append(keras.saving.load_model(source))
        path.touch()

    monkeypatch.setattr(exports, "_run", run)
    return found


def test_a_training_model_in_half_precision(tmp_path, given):
    encoder = in_precision(tiny_encoder(), "mixed_bfloat16")
    for model in (encoder, simclr(encoder)):
        path = tmp_path / f"{model.name}.onnx"
        presets.export(model, path, "onnx")
        assert given[-1].output.dtype == "float32"
        assert {x.dtype_policy.name for x in given[-1].layers} == {"float32"}


def test_trained_positions_are_exported(tmp_path, given):
    model, expected = moved(16, 1)
    presets.export(model, tmp_path / "a.onnx", "onnx")
    np.testing.assert_array_equal(features(given[0], pixels()), expected)


def test_an_open_size_is_asked_for(tmp_path):
    images = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3)(x)
    encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match="--image-size"):
        presets.export(encoder, tmp_path / "a.pt2", "torch_export")


def test_a_vit_of_another_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "_run", lambda source, path, _: path.touch())
    path = tmp_path / "a.pt2"
    with pytest.raises(ValueError, match="'vit_nano'.*image_shape=") as error:
        presets.export(vit(), path, "torch_export", image_size=32)
    assert "\n" not in str(error.value)
    presets.export(vit(), path, "torch_export", image_size=16)


def test_weights_beside_the_file_are_not_lost(tmp_path, monkeypatch):
    """PyTorch writes them so from 1.5 GiB on."""

    def run(source, path, format):
        path.touch()
        path.with_name("encoder.onnx.data").touch()

    monkeypatch.setattr(exports, "_run", run)
    with pytest.raises(ValueError, match="Take torch_export"):
        presets.export(tiny_encoder(), tmp_path / "a.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exports.sys, "executable", "false")
    with pytest.raises(ValueError, match="can't be written as onnx: no mess"):
        presets.export(tiny_encoder(), tmp_path / "a.onnx", "onnx")
    assert not list(tmp_path.iterdir())
