import dataclasses
import io
import json
import operator
import os
import random
import shutil
import signal
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl import distributed, encoders, load_encoder, recipes, runs
from kerassl.cli.main import main
from kerassl.cli.signals import stop_on_signals
from kerassl.data import listing
from kerassl.encoders import embed
from kerassl.files import PARTIAL
from kerassl.networks import all_layers
from kerassl.recipes.command import pretrain_command
from kerassl.renamed import recipe_hash
from kerassl.run_folder import refuse_files
from kerassl.runs import background as background_module
from kerassl.runs import callbacks as run_callbacks
from kerassl.runs import run as run_module
from kerassl.runs.background import Background
from kerassl.runs.checkpoint import (
    MEMBER,
    Position,
    keep_checkpoint,
    read_position,
)
from kerassl.training.monitors import Monitor
from tests.backends import once

RECIPE = recipes.get("simclr").replace(epochs=2, batch_size=32)
STEPS = 4  # an epoch
TIMES = ("seconds", "images_per_second")


class At(keras.callbacks.Callback):
    """Does something before a step of the run."""

    def __init__(self, step, action):
        super().__init__()
        self.left = step
        self.action = action

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.action()


class Steps(Monitor):
    """Logs the optimizer's steps."""

    modes = {"steps": "max"}

    def look(self, epoch, logs):
        return {"steps": int(self.model.optimizer.iterations)}


def start(folder, **changes):
    return runs.start(
        folder, RECIPE.replace(**changes), "fashion_mnist_small", limit=130
    )


def rows(run):
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in run.position.history
    ]


def assert_same(run, other):
    assert run.finished and other.finished
    assert rows(run) == rows(other)
    for variables in (
        (run.model.variables, other.model.variables),
        (run.model.optimizer.variables, other.model.optimizer.variables),
    ):
        for a, b in zip(*variables, strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
            )


@once
def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_SETTLED_NS", 0)
    (tmp_path / "photos").mkdir()
    for i in range(32):
        path = tmp_path / "photos" / f"{i}.png"
        Image.new("RGB", (20, 18), (8 * i, 0, 0)).save(path)
    recipe = RECIPE.replace(epochs=1, image_size=16)
    folder = tmp_path / "run"
    runs.start(folder, recipe, str(tmp_path / "photos")).train()
    assert (folder / "images.npz").is_file()

    def fail(*args):
        raise AssertionError("It is listed again.")

    monkeypatch.setattr(listing, "find_images", fail)
    runs.resume(folder, epochs=2).train()
    assert len(runs.read_history(folder)) == 2


def test_the_name_that_was_asked_for_is_kept(tmp_path, monkeypatch):
    load = kerassl.data.load

    def pinned(spec, *args, **options):
        found = load("fashion_mnist_small", *args, **options)
        return dataclasses.replace(found, name=f"hf:a/b@{40 * 'c'}")

    plain = start(tmp_path / "a")
    assert "data_asked" not in plain.settings
    monkeypatch.setattr(kerassl.data, "load", pinned)
    run = runs.start(tmp_path / "b", RECIPE, "hf:a/b@v1", limit=130)
    assert run.settings["data_asked"] == "hf:a/b@v1"
    assert run.settings["data"] == f"hf:a/b@{40 * 'c'}"
    assert "v1" not in pretrain_command(run.settings)


def test_a_run_that_needs_labels_is_refused_before_it_begins(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for i in range(40):
        Image.new("RGB", (16, 16)).save(tmp_path / "photos" / f"{i}.png")
    run = start(tmp_path / "run", epochs=1)
    run.train()
    before = sorted(run.folder.iterdir())
    arguments = [
        "pretrain",
        "supcon",
        "--data",
        f"folder:{tmp_path / 'photos'}",
    ]
    arguments += ["--image-size", "16", "--batch-size", "32", "--force"]
    assert main([*arguments, "--output", str(run.folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "learns from labels" in line and "no labels" in line
    assert sorted(run.folder.iterdir()) == before
    # Nor does a run go on without those that it had.
    images = np.zeros((40, 16, 16, 3), "uint8")
    path = tmp_path / "images.npz"
    recipe = recipes.get("supcon").replace(epochs=1, batch_size=32)
    np.savez(path, images=images, labels=np.arange(40) % 4)
    runs.start(tmp_path / "supcon", recipe, str(path)).train()
    np.savez(path, images=images, labels=np.arange(40) % 4 - 1)
    with pytest.raises(ValueError, match="numbers below 0"):
        runs.resume(tmp_path / "supcon", epochs=2)


def test_a_distillation_is_extended_without_its_teachers_file(tmp_path):
    teacher = tmp_path / "teacher.keras"
    encoders.build("resnet_nano", (28, 28, 1)).save(teacher)
    recipe = recipes.get("distillation").replace(
        epochs=1,
        batch_size=32,
        method_args={"teacher": str(teacher), "queue_size": 64},
    )
    run = runs.start(tmp_path / "run", recipe, "fashion_mnist_small", limit=130)
    run.train()
    moved = tmp_path / "moved"
    shutil.copytree(run.folder, moved)
    expected = runs.resume(moved, epochs=2)
    expected.train()
    teacher.unlink()
    longer = runs.resume(run.folder, epochs=2)
    longer.train()
    assert_same(longer, expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    run = start(tmp_path_factory.mktemp("runs") / "whole")
    run.train()
    return run


@pytest.mark.every_backend
def test_a_run_leaves_its_files(whole):
    assert sorted(path.name for path in whole.folder.iterdir()) == [
        "checkpoint.keras",
        "encoder.keras",
        "history.csv",
        "recipe.json",
    ]
    settings = runs.read_settings(whole.folder)
    assert settings["recipe"] == RECIPE.to_dict()
    assert settings["recipe_hash"] == RECIPE.hash
    assert settings["backend"] == keras.config.backend()
    assert settings["limit"] == 130
    header, *lines = (whole.folder / "history.csv").read_text().splitlines()
    assert header.startswith("epoch,loss,contrastive_accuracy,seconds,images_")
    assert [line.split(",")[0] for line in lines] == ["1", "2"]
    encoder = keras.saving.load_model(whole.folder / "encoder.keras")
    images = np.zeros((2, *whole.data.image_shape), "uint8")
    np.testing.assert_allclose(
        embed(encoder, images),
        whole.model.embed(images),
        atol=1e-6,
    )


@pytest.mark.every_backend
def test_a_stopped_run_goes_on_exactly(whole, tmp_path):
    step = STEPS + 1
    monitors = [Steps(every=9)]
    run = start(tmp_path)
    run.train([At(step, run.stop), *monitors])
    assert run.steps_done == step and not run.finished
    again = runs.resume(tmp_path)
    assert again.steps_done == step
    again.train([keras.callbacks.EarlyStopping("steps"), *monitors])
    # A monitor goes on with its last number, until it looks again.
    assert [row.pop("steps") for row in again.position.history] == [4, 8]
    assert_same(again, whole)
    assert (tmp_path / "history.csv").read_text().count("\n") == 3
    # The first one knows nothing of it, and would write its older state.
    with pytest.raises(runs.InUseError, match="continued by another process"):
        run.train()


@pytest.mark.every_backend
def test_a_stopped_run_with_averaged_weights_goes_on_exactly(tmp_path):
    optimizer = {**RECIPE.optimizer, "use_ema": True, "ema_momentum": 0.5}
    whole = start(tmp_path / "whole", optimizer=optimizer)
    whole.train()
    run = start(tmp_path / "run", optimizer=optimizer)
    run.train([At(STEPS + 2, run.stop)])
    assert run.steps_done == STEPS + 2
    again = runs.resume(run.folder)
    again.train()
    assert_same(again, whole)
    weights = again.model.trainable_variables
    averages = [
        variable
        for variable in again.model.optimizer.variables
        if variable.name.endswith("average")
    ]
    for weight, average in zip(weights, averages, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(weight),
            keras.ops.convert_to_numpy(average),
        )


def test_a_run_keeps_its_precision(tmp_path, monkeypatch):
    policy = "mixed_bfloat16"
    monkeypatch.setattr("kerassl.training.precision.best", lambda: policy)
    run = start(tmp_path, precision="auto")
    assert run.recipe.precision == policy
    run.train([At(2, run.stop)])
    settings = runs.read_settings(tmp_path)
    assert settings["recipe"]["precision"] == policy
    assert f" --precision {policy}" in pretrain_command(settings)
    assert keras.config.dtype_policy().name == "float32"
    # It is measured, like a preset, in float32.
    encoder, images = load_encoder(tmp_path), run.data.images[:8]
    assert {x.dtype_policy.name for x in all_layers(encoder)} == {"float32"}
    halves = run.model.embed(images)
    difference = np.abs(embed(encoder, images) - halves).max()
    assert 0 < difference < 0.02 * np.abs(halves).max()
    for _ in range(2):
        again = runs.resume(tmp_path)
        found = {x.dtype_policy.name for x in all_layers(again.model)}
        assert found == {policy} and again.recipe == run.recipe
        (tmp_path / "checkpoint.keras").unlink(True)  # As if killed before.
    # Without the field, as in runs of before there was a choice, it is float32,
    # whatever is global now.
    del settings["recipe"]["precision"]
    settings["recipe_hash"] = recipe_hash(settings["recipe"])
    (tmp_path / "recipe.json").write_text(json.dumps(settings))
    keras.config.set_dtype_policy(policy)
    found = {
        x.dtype_policy.name for x in all_layers(runs.resume(tmp_path).model)
    }
    assert found == {"float32"}
    keras.config.set_dtype_policy("bfloat16")
    with pytest.raises(ValueError, match="no precision 'bfloat16'"):
        start(tmp_path / "other")


def test_a_folder_has_one_run_at_a_time(tmp_path):
    folder = tmp_path / "new" / "run"
    run, other = start(folder), start(folder)

    def fail():
        raise RuntimeError("no memory")

    # What fails before anything is saved leaves nothing that refuses another.
    with pytest.raises(RuntimeError, match="no memory"):
        run.train([At(1, fail)])
    assert not list(tmp_path.iterdir())

    def meet():
        for meeting in (other.train, lambda: start(folder)):
            with pytest.raises(runs.InUseError, match=f"process {os.getpid()}"):
                meeting()
        with pytest.raises(runs.InUseError):
            runs.resume(folder)
        run.stop()

    run.train([At(2, meet)])
    assert run.steps_done == 2
    names = {path.name for path in folder.iterdir()}
    assert not any(name.startswith(".") for name in names)
    before = (folder / "checkpoint.keras").read_bytes()
    # It was prepared when there was none yet.
    with pytest.raises(FileExistsError, match="holds a run already"):
        other.train()
    assert (folder / "checkpoint.keras").read_bytes() == before


def test_a_full_disk_keeps_the_last_checkpoint(whole, tmp_path):
    """A limit on the size of files fails in the same way."""
    resource = pytest.importorskip("resource")
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    run = start(tmp_path)
    try:
        with pytest.raises(runs.SaveError, match="too large.* is kept"):
            run.train([At(STEPS + 1, fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    names = sorted(path.name for path in whole.folder.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert runs.resume(tmp_path).steps_done == STEPS
    run.train()
    assert_same(runs.resume(tmp_path), whole)


def test_a_finished_run_trains_for_longer(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="has 2 epochs. It can be extended"):
        runs.resume(tmp_path, epochs=1)
    run = runs.resume(tmp_path, epochs=3)
    assert not run.finished and run.total_steps == 3 * STEPS
    for name in ("variables", "optimizer.variables"):
        get = operator.attrgetter(name)
        for a, b in zip(get(run.model), get(whole.model), strict=True):
            np.testing.assert_array_equal(
                keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
            )
    rates = [
        float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        for model in (run.model, whole.model)
    ]
    peak = RECIPE.resolve(STEPS)["learning_rate"]
    assert rates[0] > 0.1 * peak > rates[1]
    run.train()
    again = runs.resume(tmp_path)
    assert again.finished and rows(again)[:2] == rows(whole)
    assert [row["epoch"] for row in rows(again)] == [1, 2, 3]
    assert again.recipe == RECIPE.replace(epochs=3)
    assert again.settings["extended"] == [{"from": 2, "at": 2, "to": 3}]


def test_a_run_that_died_in_its_first_epoch_starts_again(whole, tmp_path):
    def die():
        raise SystemExit

    run = start(tmp_path)
    with pytest.raises(SystemExit):
        run.train([At(2, die)])
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]
    again = runs.resume(tmp_path)
    again.train()
    assert_same(again, whole)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_that_are_not_a_runs_are_not_replaced(tmp_path, overwrite):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "mine.pt").touch()
    (tmp_path / "images.npz").touch()
    with pytest.raises(FileExistsError, match="no run, but images.npz, check"):
        runs.start(
            tmp_path,
            RECIPE,
            "fashion_mnist_small",
            limit=130,
            overwrite=overwrite,
        )
    assert (tmp_path / "checkpoints" / "mine.pt").exists()
    assert (tmp_path / "images.npz").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_a_recipe_is_no_run(tmp_path, overwrite):
    (tmp_path / "encoder.keras").touch()
    with pytest.raises(FileExistsError, match="no run, but encoder.keras"):
        refuse_files(tmp_path, overwrite)
    (tmp_path / "recipe.json").touch()
    if overwrite:
        refuse_files(tmp_path, overwrite)
    else:
        with pytest.raises(FileExistsError, match="holds a run already"):
            refuse_files(tmp_path)


def test_other_images_are_not_resumed_on(tmp_path, monkeypatch):
    for name, color in (("a", 0), ("b", 200)):
        (tmp_path / name / "photos").mkdir(parents=True)
        for i in range(40):
            path = tmp_path / name / "photos" / f"{i}.png"
            Image.new("RGB", (20, 18), (i, color, 0)).save(path)
    recipe = RECIPE.replace(epochs=1, image_size=16)
    monkeypatch.chdir(tmp_path / "a")
    runs.start(tmp_path / "run", recipe, "folder:photos").train()
    # The folder may move, but not be another one.
    os.rename(tmp_path / "a", tmp_path / "c")
    monkeypatch.chdir(tmp_path / "c")
    assert runs.resume(tmp_path / "run").finished
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(ValueError, match="images have changed.*others"):
        runs.resume(tmp_path / "run", epochs=2)
    monkeypatch.chdir(tmp_path / "c")
    os.rename("photos/0.png", "photos/first.png")
    with pytest.raises(ValueError, match="images have changed"):
        runs.resume(tmp_path / "run", epochs=2)


def test_scores_stay_with_their_encoder(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    scores = tmp_path / "scores.json"
    scores.write_text('{"knn": {"accuracy": 0.5}}')
    runs.resume(tmp_path).train()  # It is finished.
    assert scores.exists()
    # A kill between checkpoint and encoder leaves an older encoder.
    encoders.build("resnet_nano", (28, 28, 1)).save(tmp_path / "encoder.keras")
    runs.resume(tmp_path).train()
    assert not scores.exists()


def test_scores_are_kept_if_the_next_save_fails(whole, tmp_path, monkeypatch):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    scores = tmp_path / "scores.json"
    scores.write_text('{"knn": {"accuracy": 0.5}}')
    run = runs.resume(tmp_path, epochs=3)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "save_checkpoint", fail)
    with pytest.raises(runs.SaveError, match="is kept"):
        run.train()
    assert scores.exists()


def test_resume_repairs_files_older_than_the_checkpoint(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    for name in ("encoder.keras", "history.csv"):
        (tmp_path / name).unlink()
    run = runs.resume(tmp_path)
    assert run.finished
    run.train()
    assert (tmp_path / "encoder.keras").exists()
    assert (tmp_path / "history.csv").read_text().count("\n") == 3


def test_resume_removes_what_killed_processes_left(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"{PARTIAL}0-encoder.keras").touch()
    exported = tmp_path / f"{PARTIAL}1"  # A folder, by an export.
    exported.mkdir()
    (exported / "encoder.onnx").touch()
    runs.resume(tmp_path).train()
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_divergence_keeps_the_last_checkpoint(whole, tmp_path):
    run = start(tmp_path)
    run.train([At(STEPS, run.stop)])
    assert (run.position.epoch, run.position.step) == (1, 0)
    assert rows(run) == rows(whole)[:1]
    before = (tmp_path / "checkpoint.keras").read_bytes()

    class Poison(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            weight = run.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan, "float32"))

    # XLA's ReLU makes 0 of NaN on a CPU: there the loss stays finite.
    with pytest.raises(runs.DivergedError) as error:
        run.train([Poison()])
    for words in ("of simclr became", "of 8 (epoch 2)", "The 32 images"):
        assert words in str(error.value)
    assert (tmp_path / "checkpoint.keras").read_bytes() == before


def h5_values(path):
    """Returns the arrays in a `.keras` file by name."""
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    found = {}
    with h5py.File(content) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.every_backend
def test_checkpoints_are_written_while_the_training_goes_on(
    tmp_path, monkeypatch
):
    """From a copy: a thread writes what the model was, not what it is."""
    save, begin = run_module.save_checkpoint, Background.start
    saved, goes_on = [], threading.Event()

    def start_writing(self, work, model):
        model.save(tmp_path / "now.keras")
        return begin(self, work, model)

    def save_later(path, model, position):
        if model is not run.model:
            assert goes_on.wait(60)  # The third epoch has begun.
            save(tmp_path / "later.keras", model, position)
        save(path, model, position)
        is_main = threading.current_thread() is threading.main_thread()
        saved.append((position.epoch, is_main))

    monkeypatch.setattr(Background, "start", start_writing)
    monkeypatch.setattr(run_module, "save_checkpoint", save_later)
    run = start(tmp_path, epochs=3)
    random_state = random.getstate()
    run.train([At(2 * STEPS + 2, goes_on.set)])
    assert random.getstate() == random_state
    assert saved == [(1, True), (2, False), (3, True)]
    expected, found = (
        h5_values(tmp_path / f"{name}.keras") for name in ("now", "later")
    )
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


@once
def test_a_checkpoint_that_a_thread_cannot_write_stops_the_run(
    tmp_path, monkeypatch
):
    run = start(tmp_path, epochs=9)
    save = run_module.save_checkpoint

    def full(path, model, position):
        if position.epoch == 2:
            raise OSError(28, "No space left on device")
        save(path, model, position)

    monkeypatch.setattr(run_module, "save_checkpoint", full)
    with pytest.raises(runs.SaveError, match="No space left.* is kept"):
        run.train()
    assert runs.resume(tmp_path).position.epoch == 1
    assert run.position.epoch < 5


@once
def test_the_training_waits_where_there_is_no_memory_for_a_copy(
    tmp_path, monkeypatch
):
    def fail(config):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(background_module, "copied", fail)
    seen = []
    run = start(tmp_path, epochs=3)
    with pytest.warns(UserWarning, match="training waits .* CUDA out of"):
        run.train([At(2 * STEPS + 1, lambda: seen.append(run.saved[1]))])
    assert seen == [2] and runs.resume(tmp_path).finished


@once
def test_checkpoints_every_few_epochs(tmp_path):
    run = start(tmp_path, epochs=3)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            path = tmp_path / "checkpoint.keras"
            seen.append(read_position(path).epoch if path.exists() else 0)

    run.train([Look(), At(2 * STEPS + 1, run.stop)], checkpoint_every=2)
    assert seen == [0, 0, 2]
    assert runs.resume(tmp_path).steps_done == 2 * STEPS + 1


def test_checkpoints_are_kept(whole, tmp_path):
    run = start(tmp_path)
    run.recipe = run.recipe.replace(epochs=3)
    run.train(keep=2)
    kept = tmp_path / "checkpoints"
    names = ["epoch_0002.keras", "epoch_0003.keras"]
    assert sorted(path.name for path in kept.iterdir()) == names
    # From an older one the run goes on as it went.
    (tmp_path / "checkpoint.keras").write_bytes((kept / names[0]).read_bytes())
    again = runs.resume(tmp_path)
    assert (again.position.epoch, again.position.step) == (2, 0)


def test_the_newest_checkpoints_are_kept_and_no_others_removed(
    tmp_path, monkeypatch
):
    kept, places = tmp_path / "checkpoints", []
    kept.mkdir()
    mine = kept / "epoch_0005_good_one.keras"
    mine.touch()
    (tmp_path / "checkpoint.keras").touch()
    for epoch in range(9998, 10003):
        keep_checkpoint(tmp_path, Position(epoch=epoch), 2)
    names = {"epoch_10001.keras", "epoch_10002.keras", mine.name}
    assert {path.name for path in kept.iterdir()} == names
    # A process that is killed leaves nothing there.
    monkeypatch.setattr(shutil, "copyfile", lambda old, new: places.append(new))
    with pytest.raises(FileNotFoundError):
        keep_checkpoint(tmp_path, Position(epoch=2), 2)
    monkeypatch.undo()
    assert [place.parent for place in places] == [tmp_path]
    # After going back to an older one, the new epochs are kept.
    keep_checkpoint(tmp_path, Position(epoch=3), 2)
    names.add("epoch_0003.keras")
    assert {path.name for path in kept.iterdir()} == names


def test_nothing_is_touched_before_a_new_run_trains(whole):
    before = sorted((p.name, p.stat().st_mtime) for p in whole.folder.iterdir())
    with pytest.raises(FileExistsError, match="holds a run already"):
        start(whole.folder)
    recipe = RECIPE.replace(batch_size=4096)
    with pytest.raises(ValueError, match="130 images.*at most 130"):
        runs.start(
            whole.folder,
            recipe,
            "fashion_mnist_small",
            limit=130,
            overwrite=True,
        )
    runs.start(
        whole.folder, RECIPE, "fashion_mnist_small", limit=130, overwrite=True
    )
    after = sorted((p.name, p.stat().st_mtime) for p in whole.folder.iterdir())
    assert before == after


def test_callbacks_see_one_training(tmp_path):
    """And the end of the run, though each epoch is a `fit` of its own."""
    seen = []

    class Notes(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append("begin")

        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch + 1, self.params["epochs"]))
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            seen.append("end")

    run = start(tmp_path, epochs=3)
    run.train([Notes()])
    assert seen == ["begin", (1, 3), (2, 3), "end"]
    assert (run.position.epoch, run.position.step) == (2, 0)
    again = runs.resume(tmp_path)
    again.train([Notes()])
    assert seen[4:] == ["begin", (3, 3), "end"] and again.finished


def test_callbacks_that_restore_weights_after_the_last_save_are_refused(
    tmp_path,
):
    run = start(tmp_path / "run")
    stopping = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    with pytest.raises(ValueError, match="EarlyStopping restores .*guard"):
        run.train([stopping])
    assert not run.folder.exists()


@once
def test_several_processes_vote_every_few_steps(tmp_path, monkeypatch):
    run = start(tmp_path, epochs=3)
    monkeypatch.setattr(distributed, "process", lambda: (0, 2))
    monkeypatch.setattr(run_callbacks, "VOTE_EVERY", 3)
    votes = []

    def any_process(flag):
        votes.append(flag)
        return flag

    monkeypatch.setattr(distributed, "any_process", any_process)
    run.train([At(STEPS + 1, run.stop)])
    # In the second epoch all stop at the third step, not after the first.
    assert (run.position.epoch, run.position.step) == (1, 3)
    # Before the run, its first epoch, at step 3; the same again; at the end.
    assert votes == [False] * 5 + [True] * 2


@once
def test_a_callback_stops_a_run_in_the_middle_of_an_epoch(tmp_path):
    run = start(tmp_path)

    def stop():
        run.model.stop_training = True

    run.train([At(2, stop)])
    assert (run.position.epoch, run.position.step) == (0, 2)


def test_resume_refuses_what_can_not_go_on(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        runs.resume(tmp_path)
    settings = runs.read_settings(whole.folder)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**settings, "backend": "abacus"}))
    with pytest.raises(ValueError, match="KERAS_BACKEND=abacus"):
        runs.resume(tmp_path)
    changed = {**settings, "recipe": RECIPE.replace(seed=9).to_dict()}
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="was changed"):
        runs.resume(tmp_path)
    path.write_text(json.dumps({**settings, "limit": 120}))
    with pytest.raises(ValueError, match="has 120.*started with 130"):
        runs.resume(tmp_path)
    path.write_text(json.dumps(settings))
    (tmp_path / "checkpoint.keras").write_bytes(b"PK, but no zip")
    with pytest.raises(ValueError, match="not a checkpoint of a kerassl run"):
        runs.resume(tmp_path)


def test_the_position_is_in_the_checkpoint(whole):
    with zipfile.ZipFile(whole.folder / "checkpoint.keras") as archive:
        position = json.loads(archive.read(MEMBER))
    assert position["epoch"] == 2 and position["step"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_kills(number):
    class FakeRun:
        stopped = 0

        def stop(self):
            self.stopped += 1

    run = FakeRun()
    before = signal.getsignal(number)
    with stop_on_signals(run) as received:
        os.kill(os.getpid(), number)
        assert run.stopped == 1
        assert signal.getsignal(number) is signal.SIG_DFL
    assert received == [number]
    assert signal.getsignal(number) is before
