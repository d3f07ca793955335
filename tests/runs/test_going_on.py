"""Runs that go on from trained weights."""

import json
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

import kerassl
from kerassl import recipes, runs
from kerassl.cli.main import main
from kerassl.encoders import embed
from kerassl.layers.patches import sine_positions
from kerassl.names import BEST, ENCODER, START
from kerassl.recipes.command import pretrain_command
from kerassl.run_folder import encoder_file, read_settings
from kerassl.runs import run as run_module
from kerassl.runs.weights import describe_weights
from tests.backends import more
from tests.encoders import test_libraries
from tests.runs.test_run import At, assert_same

ROOT = Path(__file__).parents[2]
PRESET = "simclr_resnet_nano_cifar10"
RECIPE = recipes.going_on(recipes.get("simclr")).replace(
    epochs=2, batch_size=32
)


def start(folder, weights=PRESET, recipe=RECIPE, **options):
    data = options.pop("data", "fashion_mnist_small")
    return runs.start(
        folder, recipe, data, weights=weights, limit=130, **options
    )


def weights_of(source):
    return kerassl.load_encoder(source).get_weights()


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, on gray images of another size."""
    run = start(tmp_path_factory.mktemp("runs") / "whole")
    run.train()
    return run


def test_a_run_records_where_it_began(whole, tmp_path):
    assert whole.data.image_shape == (32, 32, 3)
    assert_equal(weights_of(whole.folder / START), weights_of(PRESET))
    found = read_settings(whole.folder)["weights"]
    assert found["source"] == found["name"] == PRESET
    assert (found["method"], found["license"]) == ("simclr", "apache-2.0")
    moved = zip(weights_of(whole.folder), weights_of(PRESET))
    assert any(np.abs(a - b).max() > 0 for a, b in moved)
    # And so does its preset.
    folder = runs.save_preset(whole.folder, tmp_path / "preset")
    info = kerassl.verify_preset(folder)
    assert info.datasets == ("cifar10", "fashion_mnist_small")
    card = (folder / "README.md").read_text()
    words = f"went on from: {PRESET}, trained with simclr, license apache-2.0"
    assert words in card and found["sha256"][:16] in card
    command = pretrain_command(read_settings(whole.folder))
    assert f"--from {PRESET}" in command and "--set" not in command


def test_a_run_of_weights_of_my_own_names_no_path(whole, tmp_path):
    recipe = RECIPE.replace(epochs=1)
    run = start(tmp_path / "run", weights=whole.folder, recipe=recipe)
    run.train()
    folder = runs.save_preset(run.folder, tmp_path / "preset")
    assert run.settings["weights"]["datasets"][0] == "cifar10"
    for path in (folder / "README.md", folder / "kerassl.json"):
        assert str(tmp_path.parent) not in path.read_text()
    assert "--from WEIGHTS" in (folder / "README.md").read_text()


@pytest.mark.parametrize("step", [1, 6])
def test_a_stopped_run_ends_the_same(whole, tmp_path, step):
    run = start(tmp_path / "run")
    run.train([At(step, run.stop)])
    again = runs.resume(run.folder)
    again.train()
    assert_same(again, whole)


def test_a_run_killed_in_its_first_epoch_begins_anew(whole, tmp_path):
    class Killed(BaseException):
        pass

    def die():
        raise Killed

    run = start(tmp_path / "run")
    with pytest.raises(Killed):
        run.train([At(2, die)])
    again = runs.resume(run.folder)
    assert again.steps_done == 0
    assert_equal(again.model.encoder.get_weights(), weights_of(PRESET))
    again.train()
    assert_same(again, whole)
    (run.folder / "checkpoint.keras").unlink()
    (run.folder / START).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {START}"):
        runs.resume(run.folder)


def test_sizes_and_channels(tmp_path):
    run = start(tmp_path / "a", recipe=RECIPE.replace(image_size=40))
    assert run.model.encoder.input_shape == (None, 40, 40, 3)
    gray = kerassl.encoders.build("resnet_nano", (28, 28, 1))
    gray.save(tmp_path / "gray.keras")
    images = np.zeros((40, 28, 28, 3), "uint8")
    np.save(tmp_path / "color.npy", images)
    with pytest.raises(ValueError, match="1 channels; those of .* have 3"):
        start(
            tmp_path / "b",
            weights=tmp_path / "gray.keras",
            data=str(tmp_path / "color.npy"),
        )
    with pytest.raises(ValueError, match="going_on.*resnet_nano"):
        start(tmp_path / "c", recipe=recipes.get("simclr"))


def test_a_network_for_any_size(tmp_path):
    """As KerasHub's ResNets are, `imagenet` among them."""
    test_libraries.saved(test_libraries.resnet(), tmp_path / "hub")
    source = f"hub:{tmp_path / 'hub'}"
    recipe = RECIPE.replace(epochs=1, batch_size=65)
    for name, size in (("own", None), ("given", 16)):
        run = start(tmp_path / name, source, recipe.replace(image_size=size))
        shape = (size or 28, size or 28, 3)
        assert run.model.encoder.input_shape[1:] == shape
        run.train([At(1, run.stop)])
        again = runs.resume(run.folder)
        assert again.model.encoder.input_shape[1:] == shape
        assert again.steps_done == 1


@pytest.mark.parametrize(
    "method",
    [
        "ijepa",
        pytest.param("mae", marks=more("ijepa")),
        pytest.param("simmim", marks=more("ijepa")),
    ],
)
def test_a_vit_keeps_its_positions(method, tmp_path):
    source = tmp_path / "vit.keras"
    kerassl.encoders.build("vit_nano", (32, 32, 3)).save(source)
    recipe = recipes.going_on(recipes.get(method)).replace(
        epochs=1, batch_size=32
    )
    run = start(tmp_path / "run", weights=source, recipe=recipe)
    images = kerassl.data.load("fashion_mnist_small", limit=4, image_size=32)
    pixels = np.repeat(images.images, 3, -1)
    expected = embed(kerassl.load_encoder(source), pixels)
    for encoder in (run.model.encoder, run.model.feature_encoder):
        assert_equal(encoder.get_weights(), weights_of(source))
        np.testing.assert_allclose(embed(encoder, pixels), expected, atol=1e-4)
    table = run.model.embedding.position_embedding.embeddings
    before = keras.ops.convert_to_numpy(table)
    run.train()
    # What is said of the start is true of the file, which resuming needs.
    kept = kerassl.load_encoder(run.folder / START)
    assert_equal(kept.get_weights(), weights_of(source))
    found = read_settings(run.folder)["weights"]["sha256"]
    assert describe_weights(run.folder / START, kept)["sha256"] == found
    # They don't learn, like sines, nor in a run that is resumed.
    resumed = runs.resume(run.folder, epochs=2)
    resumed.train()
    for model in (run.model, resumed.model):
        table = model.embedding.position_embedding.embeddings
        assert not table.trainable
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(table), before)


def test_a_new_vit_gets_sines():
    shape = (32, 32, 3)
    recipe = recipes.get("mae").replace(encoder="vit_nano")
    model = recipes.build_model(recipe, shape, 5)
    given = kerassl.encoders.build("vit_nano", shape)
    for each in (
        model,
        kerassl.MAE(given),
        kerassl.MAE.from_recipe(
            "cpu", encoder="vit_nano", image_shape=shape, steps=10
        ),
    ):
        table = each.embedding.position_embedding.embeddings
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(table),
            sine_positions(each.grid, table.shape[-1]),
        )


def test_files_with_the_argument_for_trained_positions_load():
    encoder = kerassl.encoders.build("vit_nano", (32, 32, 3))
    config = kerassl.MAE(encoder).get_config()
    again = kerassl.MAE.from_config({**config, "trained_positions": True})
    assert again.get_config().keys() == config.keys()


def test_positions_that_have_learned_are_kept(tmp_path):
    shape = (32, 32, 3)
    given = kerassl.encoders.build("vit_nano", shape)
    positions = given.get_layer("backbone").layers[1].position_embedding
    learned = keras.ops.convert_to_numpy(positions.embeddings) + 0.01
    positions.embeddings.assign(learned)
    given.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    for encoder in (given, loaded):
        for method in (kerassl.MAE, kerassl.SimMIM):
            table = method(encoder).embedding.position_embedding.embeddings
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(table), learned
            )


def test_without_its_guard_the_last_encoder_is_the_runs(tmp_path):
    run = start(tmp_path / "run")
    guard = runs.guard(run)
    run.train([guard, At(6, run.stop)])
    best = run.folder / BEST
    assert encoder_file(run.folder) == best
    # A guard goes on with it, and a look at it changes nothing.
    again = runs.resume(run.folder)
    again.stop()
    again.train()
    assert best.exists()
    again = runs.resume(run.folder, epochs=3)
    again.train([runs.guard(again), At(3, again.stop)])
    assert best.exists()
    runs.resume(run.folder).train()
    assert not best.exists()
    assert encoder_file(run.folder) == run.folder / ENCODER


def test_a_resumed_run_keeps_its_options(tmp_path, capsys, monkeypatch):
    train = runs.Run.train

    def stopped(run, callbacks, **options):
        train(run, [*callbacks, At(1, run.stop)], **options)

    words = ["pretrain", "simclr", "--data", "fashion_mnist_small", "--limit"]
    words += ["64", "--batch-size", "32", "--epochs", "1", "--from", PRESET]
    words += ["--guard", "off", "--keep", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "train", stopped)
        assert main([*words, "--output", str(tmp_path)]) > 128
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.strip() == f"kerassl pretrain --resume --output {tmp_path}"
    assert main(shlex.split(line)[1:]) == 0
    assert not (tmp_path / BEST).exists()
    assert list((tmp_path / "checkpoints").iterdir())
    # What is given later holds from then on.
    assert main([*shlex.split(line)[1:], "--guard", "knn"]) == 0
    found = read_settings(tmp_path)
    assert (found["guard"], found["keep"]) == ("knn", 1)


def test_scores_of_an_older_best_encoder_are_removed(tmp_path):
    class Killed(BaseException):
        pass

    def die():
        raise Killed

    run = start(tmp_path / "run", recipe=RECIPE.replace(epochs=3))
    run.train([runs.guard(run), At(2, run.stop)])
    scores = run.folder / "scores.json"
    scores.write_text("{}")
    again = runs.resume(run.folder)
    again.stop()
    again.train([runs.guard(again)])
    assert scores.exists()  # Nothing was trained.
    with pytest.raises(Killed):
        again.train([runs.guard(again), At(3, die)], checkpoint_every=2)
    assert again.position.epoch == 1 and not scores.exists()


def test_the_best_stays_until_a_newer_one_is_written(tmp_path, monkeypatch):
    run = start(tmp_path / "run")
    run.train([runs.guard(run), At(6, run.stop)])

    def full(*arguments):
        raise OSError("full")

    again = runs.resume(run.folder)
    again.keeps_best = False
    monkeypatch.setattr(run_module, "write_outputs", full)
    with pytest.raises(OSError, match="full"):
        again._write(again.model, again.position, 0)
    assert (run.folder / BEST).exists()


def test_weights_of_images_that_are_not_square(tmp_path):
    source = tmp_path / "rect.keras"
    kerassl.encoders.build("resnet_nano", (32, 48, 3)).save(source)
    with pytest.raises(ValueError, match="32 x 48 pixels.*--image-size"):
        start(tmp_path / "a", weights=source)
    run = start(
        tmp_path / "b", weights=source, recipe=RECIPE.replace(image_size=40)
    )
    assert run.model.encoder.input_shape == (None, 40, 40, 3)
    assert_equal(run.model.encoder.get_weights(), weights_of(source))


def test_a_preset_of_kerashub(tmp_path):
    """As KerasHub computes it: with the normalization of its converter."""
    import keras_hub

    folder = kerassl.presets.preset_path("mae_vit_nano_cifar10")
    encoder = kerassl.load_encoder(f"hub:{folder}")
    images = kerassl.data.load("fashion_mnist_small", limit=4, image_size=32)
    pixels = np.repeat(images.images, 3, -1)
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    expected = backbone.predict(converter(pixels), verbose=0)[:, 0]
    np.testing.assert_allclose(embed(encoder, pixels), expected, atol=1e-4)
    run = start(
        tmp_path / "run",
        weights=f"hub:{folder}",
        recipe=recipes.going_on(recipes.get("mae")).replace(batch_size=32),
    )
    assert run.settings["weights"]["source"] == f"hub:{folder}"
    with pytest.raises(ValueError, match="`revision` is for"):
        kerassl.load_encoder(f"hub:{folder}", revision="v1")
    with pytest.raises((ValueError, OSError)) as error:
        kerassl.load_encoder(f"hub:{tmp_path / 'nothing'}")
    assert "\n" not in str(error.value)


def test_mistakes_on_the_command_line(whole, capsys, tmp_path):
    common = ["pretrain", "simclr", "--data", "fashion_mnist_small"]
    output = ["--output", str(tmp_path / "run")]
    go_on = ["--from", PRESET]
    for arguments, words in (
        ([*common, *output, *go_on, "--encoder", "vit_nano"], "--encoder"),
        ([*common, *output, "--from", "nowhere"], "no encoder nowhere"),
        (
            ["pretrain", "--resume", "--output", str(whole.folder)]
            + ["--from", "another"],
            f"--from '{PRESET}', not 'another'",
        ),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
    resumed = ["pretrain", "--resume", "--output", str(whole.folder)]
    assert main([*resumed, *go_on]) == 0
    assert PRESET in capsys.readouterr().out
    # A file has the recipe for training from scratch, which going on changes.
    text = (ROOT / "kerassl" / "recipes" / "simclr.toml").read_text()
    (tmp_path / "my.toml").write_text(text)
    file = ["--recipe", f"{tmp_path / 'my.toml'}:cpu", "--batch-size", "32"]
    assert main([*resumed, *go_on, *file, "--image-size", "32"]) == 0
    changed = ["--set", "optimizer.momentum=0.8"]
    assert main([*resumed, *go_on, *file, *changed]) == 2
    assert "has optimizer" in capsys.readouterr().err
    assert json.loads((whole.folder / "recipe.json").read_text())["weights"]
