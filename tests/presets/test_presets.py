import dataclasses
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np
import pytest

import kerassl
from kerassl import encoders, presets, recipes, runs
from kerassl.layers import bicubic_matrix
from kerassl.models import in_precision
from kerassl.presets import download, extract, load, publish
from kerassl.presets.card import card
from kerassl.presets.format import info as schema
from kerassl.presets.format import verify
from kerassl.presets.format.verify import open_preset
from kerassl.presets.load import open_source
from kerassl.reading import text
from tests.presets import make

MAKERS = {
    "graph": make.graph_encoder,
    "resnet_nano": lambda: encoders.build("resnet_nano", (16, 16, 1)),
    "vit": make.vit_encoder,
    "vit_mean": lambda: make.vit_encoder(class_token=False),
    "resnet": make.resnet_encoder,
    "bottleneck": lambda: make.resnet_encoder("bottleneck_block"),
}


def features(encoder, images):
    return encoder.predict(images, verbose=0)


def python(script, *args, backend=None):
    """Runs a script in a process of its own, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, args)],
        env=os.environ | {"KERAS_BACKEND": backend or keras.backend.backend()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module", params=MAKERS)
def saved(request, tmp_path_factory):
    encoder = make.randomize(MAKERS[request.param]())
    folder = tmp_path_factory.mktemp("presets") / request.param
    assert kerassl.save_preset(encoder, folder) == folder
    return encoder, folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    return kerassl.save_preset(make.randomize(make.graph_encoder()), folder)


@pytest.mark.every_backend
def test_saved_and_loaded(saved):
    encoder, folder = saved
    images = make.images_for(encoder.input_shape[1:])
    loaded = kerassl.load_encoder(folder)
    np.testing.assert_allclose(
        features(loaded, images), features(encoder, images), rtol=1e-5
    )
    assert loaded.name == encoder.name
    assert loaded.input_shape == encoder.input_shape
    assert loaded.output_shape == encoder.output_shape
    if any(layer.name == "backbone" for layer in encoder.layers):
        assert loaded.get_layer("backbone").weights


def test_info(saved):
    encoder, folder = saved
    info = kerassl.verify_preset(folder)
    assert info.name == folder.name
    assert info.image_shape == encoder.input_shape[1:]
    assert info.features == encoder.output_shape[-1]
    assert info.parameters == encoder.count_params()
    fields = json.loads((folder / "kerassl.json").read_text())
    assert presets.PresetInfo.from_dict(fields) == info
    assert info.to_dict() == fields
    assert set(os.listdir(folder)) == {*info.files, "kerassl.json"}


WITHOUT_KERASSL = """
import sys
sys.modules["kerassl"] = None
import keras
import keras_hub
import numpy as np

root, names = sys.argv[1], ["graph", "resnet_nano", "resnet", "vit"]
images = {name: np.load(f"{root}/{name}.npy") for name in names}
for name in names[:2]:
    model = keras.saving.load_model(f"{root}/{name}")
    x = model.predict(images[name], verbose=0).mean((1, 2))
    np.save(f"{root}/{name}_found.npy", x)
model = keras.saving.load_model(f"{root}/resnet_nano.keras")
x = model.predict(images["resnet_nano"], verbose=0)
np.save(f"{root}/resnet_nano.keras_found.npy", x)
import keras_hub
for name in names[2:]:
    converter = keras_hub.layers.ImageConverter.from_preset(f"{root}/{name}")
    model = keras_hub.models.Backbone.from_preset(f"{root}/{name}")
    x = model.predict(np.asarray(converter(images[name])), verbose=0)
    x = x[:, 0] if x.ndim == 3 else x.mean((1, 2))
    np.save(f"{root}/{name}_found.npy", x)
for name in names:
    classifier = keras_hub.models.ImageClassifier.from_preset(
        f"{root}/{name}", num_classes=5
    )
    assert classifier.predict(images[name], verbose=0).shape == (3, 5)
try:
    import kerassl
except ImportError:
    print("not imported")
"""


def test_loads_without_kerassl(tmp_path):
    expected = {}
    for name in ("graph", "resnet_nano", "resnet", "vit"):
        encoder = make.randomize(MAKERS[name]())
        kerassl.save_preset(encoder, tmp_path / name)
        images = make.images_for(encoder.input_shape[1:])
        np.save(tmp_path / f"{name}.npy", images)
        expected[name] = features(encoder, images)
        if name == "resnet_nano":
            # And the whole encoder, as Keras saves it.
            encoder.save(tmp_path / f"{name}.keras")
            expected[f"{name}.keras"] = expected[name]
    assert python(WITHOUT_KERASSL, tmp_path).endswith("not imported\n")
    for name, value in expected.items():
        found = np.load(tmp_path / f"{name}_found.npy")
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)


# All names, with the large ones, take minutes.
NAMES = (
    [n for n in encoders.names() if not n.startswith("dinov2")]
    if os.environ.get("KERASSL_TEST_ALL")
    else ["resnet_nano", "resnet_18_small", "resnet_18", "vit_nano"]
)


OTHER_BACKEND = """
import sys
import numpy as np
import kerassl

root, *names = sys.argv[1:]
for name in names:
    expected = np.load(f"{root}/{name}.npz")
    encoder = kerassl.load_encoder(f"{root}/{name}")
    found = encoder.predict(expected["x"], verbose=0)
    error = np.abs(found - expected["y"]).max() / np.abs(expected["y"]).max()
    print(name, error)
    assert error < 1e-5, (name, error)
"""


def test_the_next_backend_gives_equal_features(tmp_path):
    # Each backend's presets by the next, so that all three agree.
    circle = ["tensorflow", "jax", "torch"]
    other = circle[circle.index(keras.backend.backend()) - 1]
    for name in NAMES:
        encoder = encoders.build(name, (16, 16, 3))
        kerassl.save_preset(encoder, tmp_path / name)
        images = make.images_for((16, 16, 3), 2)
        np.savez(
            tmp_path / f"{name}.npz", x=images, y=features(encoder, images)
        )
    print(other, python(OTHER_BACKEND, tmp_path, *NAMES, backend=other))


def test_image_shape(saved):
    encoder, folder = saved
    height, width, channels = encoder.input_shape[1:]
    other = (height + 8, width + 16, channels)
    loaded = kerassl.load_encoder(folder, image_shape=other)
    assert loaded.input_shape[1:] == other
    assert features(loaded, make.images_for(other)).shape == (
        3,
        encoder.output_shape[-1],
    )
    with pytest.raises(ValueError, match=f"height, width, {channels}"):
        kerassl.load_encoder(folder, image_shape=(height, width, 2))


def test_image_shape_that_does_not_fit(tmp_path):
    folder = kerassl.save_preset(make.vit_encoder(), tmp_path / "vit")
    with pytest.raises(ValueError, match="patches of"):
        kerassl.load_encoder(folder, image_shape=(10, 8, 3))
    images = keras.Input((4, 4, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Dense(2)(x)
    folder = kerassl.save_preset(keras.Model(images, x), tmp_path / "flat")
    assert kerassl.verify_preset(folder).output == "features"
    with pytest.raises(ValueError, match="tied to images of"):
        kerassl.load_encoder(folder, image_shape=(8, 8, 3))


def test_bicubic():
    np.testing.assert_allclose(bicubic_matrix(5, 5), np.eye(5), atol=1e-12)
    line = np.arange(8.0)
    # A straight line stays one, away from the ends.
    places = (np.arange(16) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(
        (bicubic_matrix(8, 16) @ line)[4:-4], places[4:-4]
    )


def test_positions_keep_the_class_token(tmp_path):
    encoder = make.randomize(make.vit_encoder())
    folder = kerassl.save_preset(encoder, tmp_path / "vit")
    loaded = kerassl.load_encoder(folder, image_shape=(16, 8, 3))
    old, new = (
        next(w for w in e.weights if w.path.endswith("embeddings"))
        for e in (encoder, loaded)
    )
    old, new = (keras.ops.convert_to_numpy(w) for w in (old, new))
    assert new.shape == (9, 8)
    np.testing.assert_allclose(new[0], old[0], rtol=1e-6)
    rows, columns = bicubic_matrix(2, 4), bicubic_matrix(2, 2)
    expected = np.einsum(
        "ah,bw,hwd->abd", rows, columns, old[1:].reshape(2, 2, 8)
    )
    np.testing.assert_allclose(
        new[1:], expected.reshape(8, 8), rtol=1e-5, atol=1e-6
    )


def test_fine_tunes_in_a_functional_model(saved):
    encoder, folder = saved
    shape = encoder.input_shape[1:]
    encoder = kerassl.load_encoder(folder)
    images = keras.Input(shape)
    model = keras.Model(images, keras.layers.Dense(3)(encoder(images)))
    model.compile(
        keras.optimizers.SGD(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = encoder.get_weights()
    model.fit(
        make.images_for(shape, 4), np.arange(4) % 3, batch_size=2, verbose=0
    )
    changed = [(a != b).any() for a, b in zip(before, encoder.get_weights())]
    assert any(changed)


def test_frozen(tiny):
    encoder = kerassl.load_encoder(tiny, trainable=False)
    assert not encoder.trainable_variables


@pytest.mark.every_backend
def test_fine_tunes_in_a_kerashub_classifier(tmp_path):
    import keras_hub

    folder = kerassl.save_preset(make.resnet_encoder(), tmp_path / "resnet")
    backbone = kerassl.load_encoder(folder).get_layer("backbone")
    assert set(backbone.pyramid_outputs) == {"P2", "P3"}
    classifier = keras_hub.models.ImageClassifier(
        backbone=backbone, num_classes=3, preprocessor=None
    )
    history = classifier.fit(
        make.images_for((16, 16, 3), 4),
        np.arange(4) % 3,
        batch_size=2,
        verbose=0,
    )
    assert np.isfinite(history.history["loss"]).all()


def test_half_precision_is_saved_as_float32(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        encoder = make.graph_encoder()
        folder = kerassl.save_preset(encoder, tmp_path / "half")
        loaded = kerassl.load_encoder(folder)
    finally:
        keras.config.set_dtype_policy(policy)
    assert loaded.output.dtype == loaded.layers[3].compute_dtype == "float32"
    for a, b in zip(encoder.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_normalization_in_half_precision_is_exact(tmp_path):
    images = make.images_for((8, 8, 3))
    adapted = keras.layers.Normalization()
    adapted.adapt(images)
    given = keras.layers.Normalization(mean=[99.0] * 3, variance=[3410.0] * 3)
    for name, layer in (("adapted", adapted), ("given", given)):
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3)(layer(inputs))
        x = keras.layers.GlobalAveragePooling2D()(x)
        encoder = keras.Model(inputs, x)
        half = in_precision(encoder, "mixed_bfloat16")
        loaded = kerassl.load_encoder(
            kerassl.save_preset(half, tmp_path / name)
        )
        np.testing.assert_allclose(
            features(loaded, images), features(encoder, images), 1e-4, 1e-5
        )


def test_nested_models_and_training_models(tmp_path):
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, name="a"),
            keras.Sequential([keras.layers.Conv2D(6, 3, name="b")]),
        ]
    )
    encoder = encoders.as_encoder(inner)
    model = kerassl.BYOL(encoder)
    folder = model.save_to_preset(tmp_path / "nested", license="mit")
    info = kerassl.verify_preset(folder)
    assert (info.method, info.output) == ("BYOL", "map")
    assert info.license == "mit"
    images = make.images_for((8, 8, 3))
    np.testing.assert_allclose(
        features(kerassl.load_encoder(folder), images),
        features(encoder, images),
        rtol=1e-5,
    )
    card = (folder / "README.md").read_text()
    assert "arxiv.org/abs/2006.07733" in card
    # Nothing is known of labels, or of scores.
    assert "pretrained with BYOL.\n" in card
    assert "a single run" not in card


@pytest.mark.parametrize("kind", ["graph", "vit"])
def test_a_name_with_a_space(kind, tmp_path):
    made = MAKERS[kind]()
    encoder = keras.Model(made.input, made.output, name="my encoder")
    encoder = encoders.as_encoder(encoder, normalization="included")
    presets.check_encoder(encoder)
    folder = kerassl.save_preset(encoder, tmp_path / "a")
    assert kerassl.load_encoder(folder).name == "my_encoder"


@pytest.mark.parametrize(
    "layer, name",
    [
        (lambda: keras.layers.Lambda(lambda x: x), "Lambda"),
        (lambda: keras.layers.Conv2DTranspose(2, 3), "Conv2DTranspose"),
    ],
)
def test_other_layers_are_not_saved(layer, name, tmp_path):
    images = keras.Input((8, 8, 3))
    x = layer()(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.GlobalAveragePooling2D()(x)
    with pytest.raises(presets.PresetError, match=name):
        kerassl.save_preset(keras.Model(images, x), tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_nan_is_not_saved(tmp_path):
    encoder = make.graph_encoder()
    encoder.set_weights([w * np.nan for w in encoder.get_weights()])
    with pytest.raises(presets.PresetError, match="NaN"):
        kerassl.save_preset(encoder, tmp_path / "a")


def test_one_data_set_needs_no_list(tmp_path):
    encoder = make.graph_encoder()
    folder = kerassl.save_preset(encoder, tmp_path / "a", datasets="cifar10")
    assert kerassl.verify_preset(folder).datasets == ("cifar10",)


def test_existing_folders(tmp_path):
    encoder = make.graph_encoder()
    folder = kerassl.save_preset(encoder, tmp_path / "a", description="one")
    with pytest.raises(FileExistsError, match="exists already"):
        kerassl.save_preset(encoder, folder)
    # What is hidden isn't the preset's: it may be a clone of a repository.
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    kerassl.save_preset(encoder, folder, description="two", overwrite=True)
    assert kerassl.verify_preset(folder).description == "two"
    assert (folder / ".git" / "HEAD").read_text() == "ref"
    other = tmp_path / "b"
    other.mkdir()
    (other / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="thesis.tex"):
        kerassl.save_preset(encoder, other, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    encoder = make.graph_encoder()
    folder = kerassl.save_preset(encoder, tmp_path / "a", description="one")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerassl.presets.save.card", full)
    for overwrite, place in ((False, tmp_path / "b"), (True, folder)):
        with pytest.raises(OSError, match="No space"):
            kerassl.save_preset(encoder, place, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["a"]
    assert kerassl.verify_preset(folder).description == "one"


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    """The HDF5 library may crash if it can't write."""
    opened = []
    open_file = h5py.File

    def note(name, *args, **kwargs):
        opened.append(type(name))
        return open_file(name, *args, **kwargs)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py, "File", note)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        kerassl.save_preset(make.graph_encoder(), tmp_path / "a")
    assert opened == [io.BytesIO]
    assert not os.listdir(tmp_path)


def test_what_appears_while_a_preset_is_saved_is_kept(tmp_path, monkeypatch):
    def appear(*args):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "thesis.tex").touch()
        return card(*args)

    monkeypatch.setattr("kerassl.presets.save.card", appear)
    with pytest.raises(FileExistsError, match="thesis.tex"):
        kerassl.save_preset(
            make.graph_encoder(), tmp_path / "a", overwrite=True
        )
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == ["thesis.tex"]


def test_the_folder_to_overwrite_has_a_name(tiny, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny, tmp_path / "a")
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=f"give {folder}"):
        kerassl.save_preset(make.graph_encoder(), ".", overwrite=True)


def test_a_cache_may_hold_other_files(tiny, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(tiny, folder)
    (folder / "notes.txt").write_text("fetched with the whole repository")
    with pytest.raises(presets.PresetError, match="notes.txt"):
        presets.verify_preset(folder)
    assert open_preset(folder, links=True).info == presets.verify_preset(tiny)


def test_others_may_read_it(tiny):
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tiny, *tiny.iterdir())]
    mask = os.umask(0)
    os.umask(mask)
    assert modes[0] == 0o777 & ~mask
    assert set(modes[1:]) == {0o666 & ~mask}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """What a run of two epochs leaves, but for its checkpoint."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = recipes.get("simclr").replace(epochs=2)
    encoder = encoders.build(recipe.encoder, (28, 28, 1))
    encoder.save(folder / "encoder.keras")
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": "fashion_mnist_small",
        "limit": 500,
        "data_dir": None,
        **runs.environment(),
    }
    (folder / "recipe.json").write_text(json.dumps(settings))
    (folder / "history.csv").write_text(
        "epoch,loss,seconds\n1,3.0,1.5\n2,2.0,1.25\n"
    )
    return folder, recipe, encoder


@pytest.mark.every_backend
def test_of_a_run(run_folder, tmp_path):
    source, recipe, encoder = run_folder
    scores = {"knn": {"accuracy": 0.75123456, "k": 20, "temperature": 0.07}}
    folder = runs.save_preset(
        source,
        tmp_path / "a",
        license="apache-2.0",
        scores=scores,
        training={"cores": 2},
    )
    info = kerassl.verify_preset(folder)
    assert info.method == "simclr"
    assert info.recipe == recipe.to_dict()
    assert info.recipe_hash == recipe.hash
    assert info.datasets == ("fashion_mnist_small",)
    assert info.scores == scores
    assert info.training["seconds"] == 2.75
    assert info.training["cores"] == 2
    assert info.training["command"].startswith(
        f"KERAS_BACKEND={keras.config.backend()} kerassl pretrain simclr "
        "--recipe cpu --data fashion_mnist_small --"
    )
    card = (folder / "README.md").read_text()
    assert "| knn | 0.7512 | k 20, temperature 0.07 |" in card
    assert "The scores are from a single run." in card
    header = dict(
        line.split(": ", 1) for line in card.split("---\n")[1].splitlines()
    )
    header = {key: json.loads(value) for key, value in header.items()}
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "kerassl"
    assert header["pipeline_tag"] == "image-feature-extraction"
    assert header["datasets"] == ["fashion_mnist_small"]
    result = header["model-index"][0]["results"][0]
    assert result["metrics"][0]["value"] == 0.75123456
    for part in (recipe.hash, "2002.05709", "kerassl pretrain", "2.75"):
        assert part in card
    # An own encoder takes other images too.
    loaded = kerassl.load_encoder(source, image_shape=(32, 32, 1))
    assert loaded.input_shape == (None, 32, 32, 1)
    for a, b in zip(loaded.get_weights(), encoder.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_no_command_makes(run_folder, tmp_path):
    source, recipe, _ = run_folder
    changed = recipe.replace(method_args={"temperature": 0.7})
    settings = json.loads((source / "recipe.json").read_text())
    settings |= {"recipe": changed.to_dict(), "recipe_hash": changed.hash}
    shutil.copytree(source, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(settings))
    folder = runs.save_preset(tmp_path / "run", tmp_path / "preset")
    assert "command" not in kerassl.verify_preset(folder).training
    assert "kerassl pretrain" not in (folder / "README.md").read_text()


def test_evaluation_takes_a_preset(run_folder, tmp_path):
    source, _, encoder = run_folder
    folder = runs.save_preset(source, tmp_path / "a")
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=40, test_limit=20
    )
    assert subject.encoder.output_shape == encoder.output_shape


def test_a_run_without_an_epoch(run_folder, tmp_path):
    source, _, _ = run_folder
    (tmp_path / "recipe.json").write_bytes(
        (source / "recipe.json").read_bytes()
    )
    with pytest.raises(FileNotFoundError, match="no epoch is finished"):
        runs.save_preset(tmp_path, tmp_path / "a")


def test_the_presets_of_the_index_are_there():
    """What comes with kerassl, each as the index has it."""
    for info in kerassl.list_presets():
        assert open_source(info.name).info == info
        encoder = kerassl.load_encoder(info.name)
        assert encoder.output_shape == (None, info.features)
        assert 0 < info.scores["knn"]["accuracy"] <= 1


@pytest.mark.every_backend
def test_a_preset_of_the_zoo(tiny, monkeypatch, tmp_path):
    info = kerassl.verify_preset(tiny)
    shutil.copytree(tiny, tmp_path / "small")
    entry = {"source": "small", "revision": None, "info": info.to_dict()}
    monkeypatch.setattr("kerassl.presets.load.zoo", lambda: tmp_path)
    monkeypatch.setattr("kerassl.presets.load._index", lambda: {"a": entry})
    loaded, expected = (kerassl.load_encoder(s) for s in ("a", tiny))
    for ours, its in zip(loaded.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(ours, its)
    entry["info"] = dataclasses.replace(info, description="x").to_dict()
    with pytest.raises(presets.PresetError, match="by that name"):
        kerassl.load_encoder("a")


def test_short_names_of_released_weights(tiny, monkeypatch, tmp_path):
    asked = []

    def unreachable(name, **options):
        asked.append(name)
        raise ConnectionError("no network")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", unreachable)
    for name in ("dinov2_small", "imagenet"):
        for arguments in ({}, {"image_shape": (56, 56, 3)}):
            with pytest.raises(FileNotFoundError, match="can't be fetched"):
                kerassl.load_encoder(name, **arguments)
        with pytest.raises(ValueError, match="`revision` is for"):
            kerassl.load_encoder(name, revision="v1")
    assert asked == ["dinov2_small"] * 2 + ["resnet_50_imagenet"] * 2
    # A local folder comes before a short name.
    shutil.copytree(tiny, tmp_path / "imagenet")
    monkeypatch.chdir(tmp_path)
    kerassl.load_encoder("imagenet")
    assert len(asked) == 4


@pytest.mark.parametrize("name", ["vit_base", "keras:MobileNetV2"])
def test_untrained_encoders_are_no_weights(name):
    with pytest.raises(FileNotFoundError, match="hub:NAME.*--encoder.*an untr"):
        kerassl.load_encoder(name)


@pytest.mark.parametrize(
    "name", ["a.pth", "a.pth.tar", "a.PT", "a.safetensors"]
)
def test_a_checkpoint_of_pytorch_is_to_be_converted(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match="presets convert SOURCE .* FOLDER"):
        kerassl.load_encoder(tmp_path / name)


def test_sources(tiny, monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match="no encoder nothing"):
        kerassl.load_encoder("nothing")
    with pytest.raises(FileNotFoundError, match="kerassl.json"):
        kerassl.load_encoder(tmp_path)
    with pytest.raises(ValueError, match="`revision` is for"):
        kerassl.load_encoder(tiny, revision="main")
    asked = []

    def download(source, revision=None):
        asked.append((source, revision))
        return tiny

    monkeypatch.setattr("kerassl.presets.download.download", download)
    kerassl.load_encoder("hf://a/b", revision="v1")
    info = kerassl.verify_preset(tiny)
    entry = {"source": "hf://a/b", "revision": "f" * 40, "info": info.to_dict()}
    index = {"tiny": entry}
    monkeypatch.setattr("kerassl.presets.load._index", lambda: index)
    assert kerassl.list_presets() == [info]
    kerassl.load_encoder("tiny")
    entry["info"] = dataclasses.replace(info, description="x").to_dict()
    with pytest.raises(presets.PresetError, match="by that name"):
        kerassl.load_encoder("tiny")
    kerassl.load_encoder("tiny", revision="v2")
    assert asked == [
        ("hf://a/b", "v1"),
        ("hf://a/b", "f" * 40),
        ("hf://a/b", "f" * 40),
        ("hf://a/b", "v2"),
    ]


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(name="a/b"), "`name`"),
        (dict(license="MIT License"), "`license`"),
        (dict(scores={"knn": {"accuracy": 75}}), "`scores`"),
        (dict(scores={"knn": 0.75}), "`scores`"),
        (dict(description="x" * 10_001), "`description`"),
        (dict(recipe="simclr:cpu"), "`recipe` must be a Recipe or the dict"),
        (dict(training={"path": Path("a")}), "`training` must hold only plain"),
        (dict(scores={"knn": {1j: 1}}), "`scores` must hold only plain"),
    ],
)
def test_fields_are_checked(fields, message, tmp_path):
    with pytest.raises(presets.PresetError, match=re.escape(message)):
        kerassl.save_preset(make.graph_encoder(), tmp_path / "a", **fields)
    assert os.listdir(tmp_path) == []


def test_numbers_of_numpy_and_a_recipe_without_a_method(tmp_path):
    folder = kerassl.save_preset(
        kerassl.BYOL(make.graph_encoder()),
        tmp_path / "a",
        recipe={"epochs": np.int64(3)},
        scores={"knn": {"accuracy": np.float32(0.5), "draws": np.ones(2)}},
        training={"seconds": np.float32(1.5)},
    )
    info = kerassl.verify_preset(folder)
    assert (info.method, info.recipe) == ("BYOL", {"epochs": 3})
    assert info.scores == {"knn": {"accuracy": 0.5, "draws": [1.0, 1.0]}}
    assert info.training == {"seconds": 1.5}


@pytest.fixture
def next_schema(monkeypatch):
    """A schema with one more field, as `format/info.py` would define it."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Extended(schema.PresetInfo):
        citation: str = ""
        schema_version: int = schema.SCHEMA_VERSION + 1

    for module in (schema, load, extract, publish, download, verify):
        monkeypatch.setattr(module, "PresetInfo", Extended)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", Extended.schema_version)
    monkeypatch.setitem(schema.SINCE, "citation", Extended.schema_version)
    monkeypatch.setitem(schema.FORMS, "citation", text(100))
    monkeypatch.setattr(load, "_index", load._index.__wrapped__)
    return Extended.schema_version


def test_a_new_field_needs_only_its_definition(tiny, next_schema, tmp_path):
    """Presets of the older schema load; the new one is as strict."""
    paths = sorted(load.zoo().glob("*/kerassl.json"))
    for path in paths:
        fields = json.loads(path.read_text())
        assert fields["schema_version"] < next_schema
        old = schema.PresetInfo.from_dict(fields)
        assert (old.citation, old.schema_version) == ("", next_schema)
    assert len(kerassl.list_presets()) == len(paths) >= 16
    assert kerassl.verify_preset(tiny).citation == ""
    kerassl.load_encoder("simclr_resnet_nano_cifar10")  # as in the index
    folder = kerassl.save_preset(
        make.graph_encoder(), tmp_path / "new", citation="Ada, 1843"
    )
    assert kerassl.verify_preset(folder).citation == "Ada, 1843"
    with pytest.raises(presets.PresetError, match="`citation`"):
        kerassl.save_preset(
            make.graph_encoder(), tmp_path / "long", citation="x" * 101
        )
    fields = json.loads((folder / "kerassl.json").read_text())
    for changed, message in (
        (fields | {"schema_version": next_schema - 1}, "unknown .* citation"),
        (fields | {"schema_version": next_schema + 1}, "Upgrade"),
        ({k: v for k, v in fields.items() if k != "citation"}, "lacks citat"),
        (fields | {"evil": 1}, "unknown fields: evil"),
    ):
        with pytest.raises(presets.PresetError, match=message):
            schema.PresetInfo.from_dict(changed)


def test_this_version_refuses_the_next_schema(tiny):
    fields = json.loads((tiny / "kerassl.json").read_text())
    fields |= {"schema_version": schema.SCHEMA_VERSION + 1, "citation": ""}
    with pytest.raises(presets.PresetError, match="Upgrade"):
        schema.PresetInfo.from_dict(fields)
