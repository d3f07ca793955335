"""The command line, end to end and in processes of its own."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kerassl
from kerassl import environment, recipes, runs
from kerassl.cli import pretrain
from kerassl.cli.main import main
from kerassl.recipes.command import pretrain_command
from kerassl.run_folder import read_scores
from tests.backends import more

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = (
    "pretrain simclr --data fashion_mnist_small --encoder resnet_nano "
    "--limit 256 --epochs 2 --batch-size 32 --output"
).split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run; it also holds what was printed."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*ARGUMENTS, str(folder)]) == 0
    (folder / "printed.txt").write_text(out.getvalue())
    return folder


def refused(capsys, *arguments):
    """Returns the one line that tells an error."""
    try:
        code = main(arguments)
    except SystemExit as error:  # argparse's
        code = error.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def process(folder, *arguments):
    """Starts `pretrain` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "kerassl", *(arguments or ARGUMENTS), folder],
        env={
            **os.environ,
            "KERAS_BACKEND": keras.config.backend(),
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, running, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_for_line(start, running):
    for line in running.stdout:
        if line.startswith(start):
            return
    raise AssertionError(running.communicate())


def assert_equal_runs(folder, other):
    histories = []
    for path in (folder, other):
        with open(path / "history.csv", newline="") as file:
            histories.append(
                [
                    (row["epoch"], row["loss"], row["contrastive_accuracy"])
                    for row in csv.DictReader(file)
                ]
            )
    assert histories[0] == histories[1]
    for name in ("encoder.keras", "checkpoint.keras"):
        weights = [
            keras.saving.load_model(path / name).get_weights()
            for path in (folder, other)
        ]
        for a, b in zip(*weights, strict=True):
            np.testing.assert_array_equal(a, b)


def test_pretrain_then_evaluate(finished, capsys, tmp_path, monkeypatch):
    finished = shutil.copytree(finished, tmp_path / "run")
    arguments = ["evaluate", str(finished), "--data", "fashion_mnist_small"]
    limits = ["--train-limit", "300", "--test-limit", "100"]
    assert main([*arguments, *limits, "--protocol", "knn", "--json"]) == 0
    printed = capsys.readouterr().out
    assert [f"knn, stage{i} " in printed for i in (1, 2, 3)] == [True] * 3
    assert printed.count("best stage") == 1
    result = json.loads(printed.splitlines()[-1])
    assert set(result["knn"]["stages"]) == {"stage1", "stage2", "stage3"}
    assert result["run"] == str(finished)
    assert result["data"] == "fashion_mnist_small"
    assert 0.2 < result["knn"]["accuracy"] <= 1
    assert 0.2 < result["knn"]["untrained_accuracy"] <= 1
    assert result["knn"]["k"] == 20
    assert result["knn"]["train_size"] == 300
    few = ["--protocol", "linear,finetune", "--per-class", "2"]
    few += ["--epochs", "1", *limits]
    assert main([*arguments, *few]) == 0
    printed = capsys.readouterr().out
    assert "linear_2_per_class" in printed
    # A quick trial that replaces a score says so.
    quick = ["--protocol", "linear", "--per-class", "2", "--train-limit", "200"]
    quick += ["--test-limit", "50"]
    assert main([*arguments, *quick]) == 0
    said = capsys.readouterr().err
    assert "replaces the run's linear_2_per_class of" in said
    assert "with test_size 100" in said
    # All in the run's folder, and from there in its preset.
    kept = read_scores(finished)
    names = ["knn", "linear_2_per_class", "finetune_2_per_class"]
    assert list(kept) == names
    assert kept["knn"]["accuracy"] == result["knn"]["accuracy"]
    assert kept["finetune_2_per_class"]["train_size"] == 20
    folder = kerassl.runs.save_preset(finished, tmp_path / "preset")
    assert list(kerassl.verify_preset(folder).scores) == names
    # Random weights are taken over from where they were measured.
    monkeypatch.delattr("kerassl.runs.protocols.base.untrained")
    again = [*arguments, "--untrained-from", str(folder)]
    assert main([*again, *limits, "--json"]) == 0
    taken = json.loads(capsys.readouterr().out.splitlines()[-1])["knn"]
    assert {"data": "fashion_mnist_small", **taken} == kept["knn"]
    for wrong, message in (
        ([*limits, "--k", "5"], "with k 20, and this one would be with 5"),
        (["--train-limit", "300"], "test_size 100"),
        (["--protocol", "linear"], "has no score linear .* It has: knn, "),
    ):
        assert main([*again, *wrong]) == 2
        assert re.search(message, capsys.readouterr().err)
    # A broken file is refused before the measuring.
    (finished / "scores.json").write_text("{")
    assert main([*arguments, *limits]) == 2
    assert "scores.json is not plain JSON" in capsys.readouterr().err


def test_a_run_is_described_before_it_starts(finished):
    out = (finished / "printed.txt").read_text()
    before, after = out.split("epoch 1/2  ")
    settings = json.loads((finished / "recipe.json").read_text())
    for part in (
        "simclr",
        "resnet_nano, 308,128 parameters",
        "256 of fashion_mnist_small, 28x28x1",
        "float32",
        "16 = 2 epochs x 8, batch 32",
        keras.config.backend(),
        settings["recipe_hash"][:12],
    ):
        assert part in before
    for part in ("loss ", "images/s", "left", "epoch 2/2", "encoder.keras"):
        assert part in after


@pytest.fixture
def chosen(monkeypatch, capsys):
    """Returns a function that runs `pretrain` and returns its recipe.

    Nothing is trained. The device is what the test says.
    """
    got = []

    def start(folder, recipe, *arguments, **options):
        got.append(recipe)
        raise ValueError("that's far enough")

    def choose(device, *arguments):
        monkeypatch.setattr(runs, "start", start)
        monkeypatch.setattr(
            environment, "environment", lambda: {"device": device}
        )
        line = refused(
            capsys, "pretrain", "simclr", "--output", "x", *arguments
        )
        assert "that's far enough" in line
        return got[-1]

    return choose


def photos(folder, size, count=32):
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 256, (size, size + 9, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize(
    "device, size, name, encoder, image_size",
    [
        ("cpu:0", 32, "cpu", "resnet_nano", 32),
        ("cpu", 65, "cpu", "resnet_nano", 64),
        ("tfrt_cpu_0", 65, "cpu", "resnet_nano", 64),
        ("cuda:0", 32, "cifar", "resnet_18_small", 32),
        ("gpu:0", 65, "imagenet", "resnet_50", 224),
        ("tpu_0(process=0,(0,0,0,0))", 65, "imagenet", "resnet_50", 224),
    ],
)
def test_the_recipe_fits_images_and_device(
    device, size, name, encoder, image_size, tmp_path, chosen
):
    # A folder has no size of its own: it gets that of its images.
    recipe = chosen(device, "--data", photos(tmp_path, size, 3))
    assert (recipe.name, recipe.encoder) == (name, encoder)
    assert recipe.image_size == image_size


@pytest.mark.parametrize(
    "options",
    [
        "auto",
        "auto --epochs 2 --batch-size 32",
        "auto --set views.preset=any_channels --limit 9000",
        "auto --from runs/a --image-size 48 --seed 3",
        "auto --recipe fast --precision auto",
        # The method is where the parser finds it.
        "--precision auto auto",
        "--precision auto --force auto",
        "--force auto --precision auto",
    ],
)
def test_auto_is_the_command_that_it_prints(options, capsys, monkeypatch):
    started = []

    def start(*arguments, **given):
        started.append((*arguments, given))
        raise ValueError("that's far enough")

    monkeypatch.setattr(runs, "start", start)
    words = ["pretrain", *options.split(), "--data", "fashion_mnist_small"]
    assert main([*words, "--output", "x"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("because ") for line in lines)
    (line,) = (line for line in lines if line.startswith("command "))
    _, kerassl, *command = shlex.split(line)
    assert kerassl == "kerassl"
    assert command.count("auto") == options.split().count("auto") - 1
    assert main(command) == 2
    # It chose nothing.
    assert "because" not in capsys.readouterr().out
    assert started[0] == started[1]


def test_auto_has_no_arguments_of_methods(capsys, finished):
    words = ["pretrain", "auto", "--data", "fashion_mnist_small"]
    line = refused(capsys, *words, "--set", "method_args.temperature=1")
    assert "method_args is for one method" in line
    line = refused(capsys, *words, "--recipe", "my.toml")
    assert "one method" in line
    # A run knows its method.
    words = ["pretrain", "auto", "--resume", "--output", str(finished)]
    assert main(words) == 0


def test_arrays_of_fitting_size_are_left_alone(chosen):
    recipe = chosen("cpu:0", "--data", "fashion_mnist_small")
    assert recipe == recipes.get("simclr", "cpu")
    recipe = chosen("cuda:0", "--data", "fashion_mnist_small")
    assert recipe == recipes.get("simclr", "cifar")


def test_what_the_user_gives_wins(tmp_path, chosen):
    data = ("--data", photos(tmp_path, 100, 3))
    assert chosen("cpu", *data, "--image-size", "96").image_size == 96
    assert chosen("cpu", *data, "--encoder", "vit_nano").encoder == "vit_nano"
    # An image size is what the recipe is chosen for.
    assert chosen("cuda:0", *data, "--image-size", "48").name == "cifar"
    recipe = chosen("cuda:0", *data, "--image-size", "96")
    assert (recipe.name, recipe.image_size) == ("imagenet", 96)
    # A named recipe is taken as it is.
    for device in ("cpu", "cuda:0"):
        for name in ("cpu", "cifar", "imagenet"):
            recipe = chosen(device, *data, "--recipe", name)
            assert recipe == recipes.get("simclr", name)


def test_any_field_is_changed(chosen, tmp_path):
    data = ("--data", "fashion_mnist_small")
    change = ("--set", "optimizer.learning_rate=0.8", "--set", "views.blur=0")
    for recipe in ((), ("--recipe", "cpu")):
        found = chosen("cpu", *data, *recipe, *change, "--epochs", "3")
        assert found == recipes.get("simclr", "cpu").change(
            epochs=3, optimizer={"learning_rate": 0.8}, views={"blur": 0}
        )
    # An image size that is set chooses the recipe, as the option does.
    found = chosen("cuda:0", *data, "--set", "image_size=96")
    assert (found.name, found.image_size) == ("imagenet", 96)
    text = (ROOT / "kerassl" / "recipes" / "simclr.toml").read_text()
    (tmp_path / "my.toml").write_text(text.replace("cifar", "mine"))
    found = chosen("cpu", *data, "--recipe", f"{tmp_path / 'my.toml'}:mine")
    assert found == recipes.get("simclr", "cifar").change(name="mine")


@pytest.mark.parametrize(
    "change, message, is_early",
    [
        ("optimiser.learning_rate=1", "Nearest: optimizer", True),
        ("schedule.warmup_epoch=1", "Nearest: warmup_epochs", True),
        ("optimizer.learning_rate=fast", "must be a number", True),
        ("encoder=resnet_nan", "Nearest: resnet_nano", True),
        ("epochs", "FIELD.KEY=VALUE", True),
        ("views.blurr=0", "Nearest: blur", False),
        ("method_args.temprature=1", "Nearest: temperature", False),
        ("optimizer.momentun=1", "Nearest: momentum", False),
    ],
)
def test_wrong_changes_are_refused(
    change, message, is_early, capsys, monkeypatch, tmp_path
):
    words = "pretrain simclr --data fashion_mnist_small --recipe cpu --output"
    if is_early:  # Before Keras is loaded.
        monkeypatch.delattr("kerassl.cli.pretrain.load_keras")
    monkeypatch.delattr("kerassl.runs.start")  # Before data are loaded.
    folder = str(tmp_path / "run")
    line = refused(capsys, *words.split(), folder, "--set", change)
    assert message in line
    line = refused(
        capsys, *words.split(), folder, "--epochs", "2", "--set", "epochs=2"
    )
    assert "--epochs and --set epochs are the same" in line


def test_a_chosen_recipe_is_described(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(environment, "environment", lambda: {"device": "cpu:0"})
    (tmp_path / "photos").mkdir()
    data = photos(tmp_path / "photos", 80)
    arguments = ["pretrain", "simclr", "--data", data, "--epochs", "1"]
    arguments += ["--batch-size", "32", "--output", str(tmp_path / "run")]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert (
        "chosen   recipe cpu, for images of about 80 px on cpu:0, resized to "
        "64 px (--recipe and --image-size choose otherwise)\n"
    ) in out
    assert f"32 of {data}, 64x64x3\n" in out
    # A run goes on with the size that was chosen.
    assert (
        main(["pretrain", "--resume", "--output", str(tmp_path / "run")]) == 0
    )
    out = capsys.readouterr().out
    assert "64x64x3" in out and "\nchosen " not in out


def test_unreadable_images_are_tolerated_as_asked(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "photos").mkdir()
    data = photos(tmp_path / "photos", 16)
    for i in range(2):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"")
    arguments = ["pretrain", "simclr", "--data", data, "--batch-size", "8"]
    arguments += ["--output", str(tmp_path / "run")]
    line = refused(capsys, *arguments)
    assert "2 of 32 images" in line and "--max-unreadable" in line
    assert "from 0 to 1" in refused(capsys, *arguments, "--max-unreadable", "5")

    started = []
    monkeypatch.setattr(
        runs.Run, "train", lambda run, *_, **__: started.append(run)
    )
    assert main([*arguments, "--max-unreadable", "0.1"]) != 0  # Not finished.
    (run,) = started
    assert len(run.data.images) == 30
    assert run.settings["max_unreadable"] == 0.1
    assert "--max-unreadable 0.1" in pretrain_command(run.settings)

    got = []

    def evaluation(*arguments, **options):
        got.append(options["max_unreadable"])
        raise ValueError("that's far enough")

    monkeypatch.setattr(runs, "Evaluation", evaluation)
    for option in ((), ("--max-unreadable", "0.2")):
        refused(capsys, "evaluate", "x", "--data", data, *option)
    assert got == [0.01, 0.2]


def test_a_run_is_overwritten_by_force_alone(finished, tmp_path, capsys):
    before = (finished / "checkpoint.keras").read_bytes()
    line = refused(capsys, *ARGUMENTS, str(finished))
    assert "holds a run already" in line and "--force" in line
    # Force removes nothing before the arguments and the data are checked.
    force = [*ARGUMENTS, str(finished), "--force"]
    assert "no encoder" in refused(capsys, *force, "--encoder", "resnet")
    refused(capsys, *force, "--data", "folder:nowhere")
    assert "4096" in refused(capsys, *force, "--batch-size", "4096")
    assert (finished / "checkpoint.keras").read_bytes() == before

    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("keep")
    arguments = [*ARGUMENTS, str(tmp_path), "--limit", "64", "--epochs", "1"]
    assert main([*arguments, "--force"]) == 0
    assert json.loads((tmp_path / "recipe.json").read_text())["limit"] == 64
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_a_run_has_a_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*ARGUMENTS[:-1], "--limit", "32", "--epochs", "1"]
    arguments += ["--monitor", "knn, collapse", "--tensorboard"]
    assert main(arguments) == 0
    folder = tmp_path / "runs/simclr_fashion_mnist_small"
    assert (folder / "recipe.json").exists()
    (row,) = csv.DictReader((folder / "history.csv").open())
    assert 0.1 < float(row["knn_accuracy"]) <= 1
    assert float(row["effective_rank"]) > 1
    assert list((folder / "tensorboard").glob("train/events.*"))


def test_tensorboard_is_asked_for_by_name(tmp_path, monkeypatch):
    run = types.SimpleNamespace(folder=tmp_path)
    assert isinstance(runs.tensorboard(run), keras.callbacks.TensorBoard)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ImportError, match="tensorflow and tensorboard"):
            runs.tensorboard(run)


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("pretrain simclear --data cifar10 --output x", "simclr"),
        ("pretrain simclr --recipe cifer --data cifar10 --output x", "cifar"),
        (
            "pretrain simclr --encoder resnet_nan --data cifar10 --output x",
            "resnet_nano",
        ),
        (
            "pretrain simclr --data fashion_mnist_smal --output x",
            "fashion_mnist_small",
        ),
        ("pretrain simclr --output x", "--data"),
        ("pretrain --data cifar10 --output x", "simclr"),
        ("pretrain simclr --data cifar10 --output x --epochs 0", "positive"),
        ("pretrain --resume", "--output"),
        ("pretrain MoCo-v2 --data cifar10 --output x", "Nearest: moco_v2,"),
        (
            "pretrain simclr --data fashion_mnist_small --batch-size 1 "
            "--recipe cpu --output x",
            "can't train on a batch of 1",
        ),
        (
            "pretrain simclr --data fashion_mnist_small --recipe cpu "
            "--output /proc/x/y",
            "/proc is not writable",
        ),
        (
            "pretrain simclr --data cifar10 --output x --precision bfloat16",
            "Nearest: mixed_bfloat16",
        ),
        ("pretend", "pretrain"),
        ("evaluate nowhere --data fashion_mnist_small", "encoder.keras"),
        (
            "evaluate nowhere --data fashion_mnist_small --protocol kn",
            "knn",
        ),
        (
            "evaluate nowhere --data fashion_mnist_small --labels 0.1",
            "--labels is an option of linear and linear_sgd and finetune",
        ),
        (
            "evaluate nowhere --data fashion_mnist_small --protocol linear,knn "
            "--epochs 2",
            "--epochs",
        ),
        ("pretrain --resume --output nowhere", "holds no run"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    wrong, right, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert right in refused(capsys, *wrong.split())
    assert not list(tmp_path.iterdir())


def test_the_folder_has_a_name_by_default(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/simclr_fashion_mnist_small")
    folder.mkdir(parents=True)
    (folder / "recipe.json").touch()
    line = refused(
        capsys, *"pretrain simclr --data fashion_mnist_small".split()
    )
    assert f"{folder} holds a run already" in line


def test_resume_of_a_finished_run(finished, capsys):
    assert main(["pretrain", "--resume", "--output", str(finished)]) == 0
    assert "is finished" in capsys.readouterr().out
    same = [*ARGUMENTS, str(finished), "--resume"]
    assert main(same) == 0
    capsys.readouterr()
    line = refused(capsys, *same, "--batch-size", "64")
    assert "--batch-size 32, not 64" in line
    line = refused(capsys, *same, "--epochs", "1")
    assert "has 2 epochs. It can be extended" in line
    assert main([*same, "--max-unreadable", "0.01"]) == 0
    line = refused(capsys, *same, "--max-unreadable", "0.5")
    assert "--max-unreadable 0.01, not 0.5" in line
    assert main([*same, "--set", "optimizer.momentum=0.9"]) == 0
    line = refused(capsys, *same, "--set", "optimizer.momentum=0.8")
    assert "has optimizer" in line and "'momentum': 0.8" in line
    for precision in ("float32", "auto"):
        assert main([*same, "--precision", precision]) == 0
    line = refused(capsys, *same, "--precision", "mixed_bfloat16")
    assert "--precision 'float32', not 'mixed_bfloat16'" in line
    resume = ("pretrain", "--resume", "--output", str(finished))
    line = refused(capsys, *resume, "--set", "epochs=1")
    assert "has 2 epochs. It can be extended" in line


def test_a_commit_of_the_hub_needs_no_repeating(
    finished, tmp_path, capsys, monkeypatch
):
    settings = json.loads((finished / "recipe.json").read_text())
    settings["data"] = f"hf:alice/photos@{40 * 'a'}"
    settings["data_asked"] = "hf:alice/photos@v1"
    (tmp_path / "recipe.json").write_text(json.dumps(settings))

    def resume(*arguments, **options):
        raise ValueError("that's far enough")

    monkeypatch.setattr(runs, "resume", resume)
    words = ["pretrain", "--resume", "--output", str(tmp_path), "--data"]
    for data in ("hf:alice/photos", *map(settings.get, ("data", "data_asked"))):
        assert "far enough" in refused(capsys, *words, data)
    for name in ("other", f"photos@{40 * 'b'}", "photos@v2"):
        data = f"hf:alice/{name}"
        assert f"not '{data}'" in refused(capsys, *words, data)


@pytest.mark.parametrize("method", ["context_encoder", "byol"])
def test_going_on_by_a_file_of_recipes_resumes(
    method, tmp_path, capsys, monkeypatch
):
    text = (ROOT / f"kerassl/recipes/{method}.toml").read_text()
    # What going on overrides, as it does when the run begins.
    head = "[cpu.schedule]\n"
    text = text.replace(head, f"{head}frozen_share = 0.5\nlayer_decay = 0.9\n")
    if method == "byol":
        head = "[cpu.method_args]\n"
        text = text.replace(head, f"{head}copy_weights = false\n")
    path = tmp_path / "my.toml"
    path.write_text(text)
    recipe = recipes.going_on(recipes.get(method, f"{path}:cpu"))
    settings = {
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe.hash,
        "data": "fashion_mnist_small",
        "backend": "torch",
        "weights": {"source": "a", "name": "a", "sha256": 64 * "0"},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(settings))

    def resume(*arguments, **options):
        raise ValueError("that's far enough")

    monkeypatch.setattr(runs, "resume", resume)
    words = ["pretrain", method, "--from", "a", "--recipe", f"{path}:cpu"]
    words += ["--resume", "--output", str(tmp_path)]
    assert "far enough" in refused(capsys, *words)
    line = refused(capsys, *words, "--set", "schedule.shares.encoder=0.2")
    assert "has schedule" in line


def test_a_run_stops_where_another_process_is_to(tmp_path, capsys, monkeypatch):
    # It is asked before the first epoch and after each step.
    answers = iter([False] * 5 + [True] * 9)
    monkeypatch.setattr(
        kerassl.distributed, "any_process", lambda flag: next(answers)
    )
    assert main([*ARGUMENTS, str(tmp_path)]) == 128 + signal.SIGTERM
    done = runs.resume(tmp_path).steps_done
    assert 0 < done < 16
    text = f"Stopped and saved at step {done} of 16."
    assert text in capsys.readouterr().out


def test_processes_run_no_files_of_the_working_directory(monkeypatch):
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    started = {}

    def become(path, words, variables):
        started.update(words=words, variables=variables)

    monkeypatch.setattr(os, "execve", become)
    pretrain._start_processes(2, ["pretrain", "simclr"])
    assert started["words"][-2:] == ["pretrain", "simclr"]
    assert started["variables"]["PYTHONSAFEPATH"] == "1"
    # How long torchrun lets them save after Ctrl-C.
    name = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
    assert started["variables"][name] == "600"
    monkeypatch.setenv(name, "5")
    pretrain._start_processes(2, ["pretrain", "simclr"])
    assert started["variables"][name] == "5"


@pytest.mark.every_backend
def test_interrupted_runs_go_on_exactly(finished, tmp_path):
    running = process(tmp_path)
    wait_for_line("epoch 1/2", running)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 130, (out, err)
    assert "Stopping after this step" in err
    assert f"kerassl pretrain --resume --output {tmp_path}" in out
    assert main(["pretrain", "--resume", "--output", str(tmp_path)]) == 0
    assert_equal_runs(tmp_path, finished)


@more("test_interrupted_runs_go_on_exactly")
def test_runs_killed_at_random_go_on_exactly(finished, tmp_path):
    random = np.random.default_rng()
    arguments = ARGUMENTS
    for _ in range(3):
        running = process(tmp_path, *arguments)
        for line in running.stdout:
            if line.startswith("epoch"):
                time.sleep(random.uniform(0, 1))
                break
        running.kill()
        running.communicate()
        arguments = ("pretrain", "--resume", "--output")
    assert main([*arguments, str(tmp_path)]) == 0
    assert_equal_runs(tmp_path, finished)
