"""Generated pages are up to date; trainings end well; costs are counted."""

import argparse
import concurrent.futures
import copy
import importlib
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import kerassl
from kerassl.environment import environment
from tests.backends import more, once

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.fixture
def load(monkeypatch):
    """Returns a function that imports a script's module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module


@once
def test_pages_are_up_to_date(load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["write_pages.py", "--check"])
    assert load("write_pages").main() == 0, capsys.readouterr().out


@once
def test_a_stale_page_is_found_and_written(load, monkeypatch, capsys, tmp_path):
    script, methods = load("write_pages"), load("pages.methods")
    monkeypatch.setattr(script.benchmark, "draw", lambda: None)
    monkeypatch.setattr(script.benchmark, "pages", dict)
    monkeypatch.setattr(script.cards, "pages", dict)
    monkeypatch.setattr(script.performance, "pages", dict)
    monkeypatch.setattr(script.studies, "pages", dict)
    monkeypatch.setattr(script.studies, "draw", lambda: None)
    monkeypatch.setattr(script.results, "ROOT", tmp_path)
    monkeypatch.setattr(methods, "ROOT", tmp_path)
    docs = SCRIPTS.parent / "docs"
    shutil.copytree(docs / "methods", tmp_path / "docs" / "methods")
    page = tmp_path / "docs" / "methods.md"
    whole = (docs / "methods.md").read_text(encoding="utf-8")
    # A result and a table of methods.
    stale = whole.replace("32.1%", "48.1%").replace("NT-Xent", "a loss")
    assert stale.count("48.1%") > 1 and stale.count("a loss") > 1
    page.write_text(stale, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["write_pages.py", "--check"])
    assert script.main() == 1
    assert "docs/methods.md is stale" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == stale
    monkeypatch.setattr(sys, "argv", ["write_pages.py"])
    assert script.main() == 0
    assert page.read_text(encoding="utf-8") == whole


@once
def test_a_repeated_run_counts_once(load, tmp_path):
    path = tmp_path / "runs.jsonl"
    for recipe, seed, knn in (
        ("a", 0, 1),
        ("b", 0, 2),
        ("b", 1, 3),
        ("b", 0, 4),
    ):
        run = {"method": "simclr", "recipe": recipe, "seed": seed, "knn": knn}
        load("results").append_line(path, {**run, "images": 100})
    found = load("pages.methods").runs_of(path, 100)
    assert [run["knn"] for run in found["simclr"]] == [4, 3]


@once
def test_runs_of_todays_recipe_count_however_it_was_written(load, tmp_path):
    results, page = load("results"), load("pages.methods")
    recipe = kerassl.recipes.get("dino")
    today = recipe.hash
    (former, *_) = results.recipe_hashes(recipe.to_dict()) - {today}
    path = tmp_path / "runs.jsonl"
    for one, seed, images, knn in (
        (former, 0, 100, 1),
        (today, 1, 100, 2),
        (today, 0, 20, 3),  # a trial
        (recipe.replace(epochs=1).hash, 0, 100, 4),  # another
    ):
        run = {"method": "dino", "recipe": one, "seed": seed, "knn": knn}
        results.append_line(path, {**run, "images": images})
    found = page.runs_of(path, 100)
    assert [run["knn"] for run in found["dino"]] == [1, 2]


@once
def test_a_field_that_recipes_leave_out_was_tried(load):
    now = kerassl.recipes.get("simclr").to_dict()
    tried = {**now, "precision": "mixed_bfloat16"}
    found = load("pages.benchmark").differences(tried, now)
    assert found == ['precision="mixed_bfloat16"']


@once
@pytest.mark.parametrize(
    "method, reduced, gathered",
    [
        ("moco_v2", 0, 8 * 4 * (32 * 32 * 3 + 128)),
        ("dinov2", 8 * 4 * 2 * 96, 8 * 4 * 2 * 96),
        ("distillation", 0, 8 * 4 * 128),
        ("simclr", 8 * 4 * 2 * 64, 8 * 4 * 2 * 64),
    ],
)
def test_traffic_is_what_the_pages_say(load, method, reduced, gathered):
    pytest.importorskip("jax")
    recipe = kerassl.recipes.get(method)
    if method == "moco_v2":
        recipe = recipe.replace(method_args={"batch_groups": 2})
    model = kerassl.recipes.build_model(recipe, (32, 32, 3), 10)
    found = load("cost_model").counts(method, model, 8)
    assert found["reduced_bytes"] == reduced
    assert found["gathered_bytes"] == gathered


@once
def test_seeds_of_a_recipe_are_one_result(load, monkeypatch, tmp_path):
    results, methods = load("results"), load("trainings.methods")
    path, ran = tmp_path / "runs.jsonl", []
    recipe = kerassl.recipes.get("simclr")
    shared = {"method": "simclr", "images": 10_000, "epochs": recipe.epochs}
    shared |= {"backend": "torch", "seconds": 60.0, "untrained": 0.3}
    for seed, knn in ((0, 0.4), (1, 0.5)):
        run = {"recipe": recipe.hash, "seed": seed, "knn": knn}
        results.append_line(path, {**shared, **run})
    page = load("pages.methods")
    text = page.describe(page.runs_of(path, 10_000)["simclr"])
    assert "**45.0%**" in text and "mean of 2 runs" in text
    assert "earlier recipe" not in text

    # Only what is missing is run.
    def fail(words, **options):
        ran.append(words)
        return types.SimpleNamespace(returncode=1)

    monkeypatch.setattr(methods.subprocess, "run", fail)
    parser = argparse.ArgumentParser()
    methods.add_arguments(parser)
    words = ["--methods", "simclr", "--seeds", "0", "1", "2"]
    options = parser.parse_args([*words, "--output", str(path)])
    assert methods.main(options) == 1
    assert [words[words.index("--seeds") + 1] for words in ran] == ["2"]


@once
def test_a_study_of_a_changed_recipe_runs_again(load, monkeypatch, tmp_path):
    results, studies = load("results"), load("trainings.studies")
    name, ran = "simsiam_stop_gradient", []
    monkeypatch.setattr(studies, "RUNS", tmp_path / "runs.jsonl")
    hashes = {"with": studies.recipe_of(name, "with").hash, "without": "other"}
    for label, one in hashes.items():
        line = {"study": name, "variant": label, "recipe_hash": one}
        results.append_line(studies.RUNS, line)

    def fail(words, **options):
        ran.append(words[-1])
        return types.SimpleNamespace(returncode=1)

    monkeypatch.setattr(studies.subprocess, "run", fail)
    parser = argparse.ArgumentParser()
    studies.add_arguments(parser)
    assert studies.main(parser.parse_args(["--only", name])) == 1
    assert ran == ["without"]


@once
def test_a_preset_trained_anew_drops_its_other_seeds(
    load, monkeypatch, tmp_path
):
    results, presets = load("results"), load("trainings.presets")
    monkeypatch.setattr(presets, "PRESETS", tmp_path / "presets")
    monkeypatch.setattr(presets, "REPEATS", tmp_path / "repeats.json")
    presets.PRESETS.mkdir()
    presets.write_json(presets.PRESETS / "index.json", {"presets": {}})
    presets.write_entry(presets.REPEATS, "b", {"1": {}})
    weights = ["1"]
    monkeypatch.setattr("kerassl.runs.save_preset", lambda *_, **__: None)
    monkeypatch.setattr(
        "kerassl.presets.format.verify.verify_preset",
        lambda _: types.SimpleNamespace(
            to_dict=lambda: {
                "files": {"model.weights.h5": {"sha256": weights[0]}}
            }
        ),
    )
    (tmp_path / "history.csv").write_text("")
    task = presets.Task("a", None, "cifar10", tmp_path)
    for hash, kept in (("1", True), ("1", True), ("2", False)):
        weights[0] = hash
        presets.pack(task)
        if hash == "1":
            presets.write_entry(presets.REPEATS, "a", {"1": {}})
        assert ("a" in results.read_json(presets.REPEATS)) == kept
    assert results.read_json(presets.REPEATS) == {"b": {"1": {}}}
    info = presets.read_index()["presets"]["a"]["info"]
    assert results.weights_hash(info) == "2"


@once
def test_results_keep_the_hash_of_former_names(load):
    recipes = {
        name: kerassl.recipes.get(name).to_dict() for name in ("swav", "simclr")
    }
    old = copy.deepcopy(recipes["swav"])
    settings = old["method_args"]
    settings["prototypes"] = settings.pop("num_prototypes")
    hashes = load("results").recipe_hashes(recipes["swav"])
    assert len(hashes) == 2
    assert hashes == load("results").recipe_hashes(old)
    assert len(load("results").recipe_hashes(recipes["simclr"])) == 1
    # I-JEPA's momentum had the recipe's number of epochs.
    recipe = kerassl.recipes.get("ijepa").to_dict()
    settings = copy.deepcopy(recipe["method_args"])
    settings["momentum"]["epochs"] = recipe["epochs"]
    old = kerassl.recipes.get("ijepa").replace(method_args=settings)
    assert old.hash in load("results").recipe_hashes(recipe)
    # Shares of CIFAR-10's 32 pixels were a number of pixels.
    recipe = kerassl.recipes.get("dino")
    old = recipe.change(**{"views.size": 16})
    assert old.hash in load("results").recipe_hashes(recipe.to_dict())


@once
def test_a_line_that_was_cut_off_is_skipped(load, tmp_path):
    results, path = load("results"), tmp_path / "lines.jsonl"
    results.append_line(path, {"a": 1})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"a": ')
    results.append_line(path, {"a": 2})
    assert results.read_lines(path) == [{"a": 1}, {"a": 2}]


@once
@pytest.mark.parametrize(
    "arguments,message",
    [
        ("tune simclear", "Nearest: simclr"),
        ("tune simclr --change nothing=1", "no field of recipes 'nothing'"),
        ("tune simclr --images 50000", "at most 45000"),
        ("methods --methods simclear", "Nearest: simclr"),
        ("presets --only simclear", "Nearest: simclr"),
        ("presets --scale imagenet", "--imagenet PATH"),
        ("studies --only simsiam", "invalid choice: 'simsiam'"),
    ],
)
def test_wrong_trainings_are_refused(
    load, arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        load("train").main()
    assert message in capsys.readouterr().err


@once
def test_the_changes_of_studies_are_known(load):
    load("train")
    from trainings import studies, tune

    for study in studies.STUDIES.values():
        recipe = kerassl.recipes.get(study.method)
        made = {
            (tune.changed(recipe, list(v.changes)).hash, v)
            for v in study.variants.values()
        }
        assert len(made) == len(study.variants)


# Accuracies that agree with the paper, and some that don't; all others are 0.5.
DIRECTIONS = {
    "simclr_augmentations": ({"crop + jitter": 0.6}, {"crop + blur": 0.6}),
    "simclr_temperature": ({"0.2": 0.6}, {"1.0": 0.6}),
    "simsiam_stop_gradient": ({"without": 0.4}, {"without": 0.5}),
    "byol_predictor": ({"without": 0.4}, {"without": 0.5}),
    "moco_shuffled_statistics": ({"four groups": 0.6}, {"one group": 0.6}),
    "barlow_twins_width": ({"32": 0.4}, {"512": 0.6}),
    "barlow_twins_scaled_width": ({"32": 0.4}, {"512": 0.6}),
    "mae_mask_ratio": ({"0.75": 0.6}, {"0.9": 0.6}),
}


@once
def test_studies_agree_with_the_paper_or_not(load):
    load("train")
    from trainings.studies import STUDIES

    assert list(DIRECTIONS) == list(STUDIES)
    for name, (agreeing, other) in DIRECTIONS.items():
        study = STUDIES[name]
        same = dict.fromkeys([*study.variants, "untrained"], 0.5)
        assert {*agreeing, *other} <= {*same}
        assert study.agrees({**same, **agreeing})
        assert not study.agrees({**same, **other})


@once
@pytest.mark.parametrize(
    "knn, linear, words",
    [
        (0.411, 0.45, "can't be told: all are within"),
        (0.45, 0.45, "is the same"),
        (0.3, 0.3, "isn't the same"),
        (0.45, 0.3, "can't be told: only kNN"),
        (0.3, 0.45, "can't be told: only the linear"),
    ],
)
def test_a_study_tells_what_its_runs_allow(load, knn, linear, words):
    load("train")
    from pages import studies

    def run(knn, linear):
        signs = {"effective_rank": 9.0, "spread": 0.5}
        return {"knn": knn, "linear": linear, **signs}

    untrained = run(0.3, 0.3)
    runs = {
        "one group": run(0.4, 0.4),
        "two groups": run(knn, linear),
        "four groups": run(min(knn, 0.4), min(linear, 0.4)),
    }
    runs = {label: {**x, "untrained": untrained} for label, x in runs.items()}
    text = studies.section("moco_shuffled_statistics", runs)
    assert f"*Here* the direction {words}" in text


@once
@pytest.mark.parametrize(
    "name,label",
    [
        ("simclr_augmentations", "crop + jitter"),
        ("byol_predictor", "without"),
    ],
)
def test_variants_of_a_study_train(load, name, label):
    load("train")
    from trainings import studies

    study = studies.STUDIES[name]
    recipe = kerassl.recipes.get(study.method).replace(epochs=1)
    variant = study.variants[label]
    model = studies.build(recipe, variant, (32, 32, 3), 2)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    images = images.astype("uint8")
    assert np.isfinite(model.train_on_batch(images)).all()
    if variant.operations:
        for operations in model.augmenter.views.values():
            names = [type(operation).__name__ for operation in operations]
            assert names == ["Resize", "RandomResizedCrop", "ColorJitter"]
    if variant.without_predictor:
        outputs = model(images, training=True)
        np.testing.assert_array_equal(
            *(
                keras.ops.convert_to_numpy(outputs[f"{kind}_1"])
                for kind in ("prediction", "projection")
            )
        )


@pytest.mark.skipif(
    keras.config.backend() != "jax", reason="counted by XLA through JAX"
)
def test_operations_are_counted(load):
    script = load("cost_model")
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.Dense(5, use_bias=False)(layers.Flatten()(x))
    found = script.encoder_flops(keras.Model(inputs, x), 8) / script.BATCH
    # Each pixel at a border has fewer neighbors.
    neighbors = (6 * 3 + 2 * 2) ** 2
    assert found == pytest.approx(
        2 * (neighbors * 3 * 16 + 8 * 8 * 16 * 5), rel=0.02
    )


@once
def test_costs_are_those_of_todays_recipes(load):
    results = load("results")
    stale = [
        f"{line['method']} ({line['scale']})"
        for line in results.read_lines(results.RESULTS / "cost.jsonl")
        if line["recipe"]
        not in results.recipe_hashes(
            kerassl.recipes.get(line["method"], line["scale"]).to_dict()
        )
    ]
    assert not stale, "Count again with scripts/cost_model.py."


CHILD = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(1)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(3)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from trainings import presets
start = subprocess.Popen
presets.subprocess.Popen = lambda command, env: start(
    [sys.executable, "-c", sys.argv[2], sys.argv[3]]
)
presets.kerassl()
"""


@once
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_may_save_when_the_script_is_stopped(number, tmp_path):
    saved = tmp_path / "saved"
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, SCRIPTS, CHILD, saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    # A terminal sends Ctrl-C to both, and `kill` its signal to one.
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    assert process.wait(timeout=30) != 0
    assert saved.exists()


@once
def test_a_training_takes_the_epochs_that_fit_into_the_minutes(
    load, monkeypatch
):
    load("results")
    presets, pace = load("trainings.presets"), load("trainings.pace")
    clock, fitted = [0.0], []

    class Model:
        def fit(self, images, batch_size, verbose):
            fitted.append(len(images.images))
            clock[0] += 100.0 if len(fitted) == 1 else 2.0  # It compiles.

    monkeypatch.setattr(pace.time, "perf_counter", lambda: clock[0])
    images = kerassl.data.ImageData(np.zeros((2000, 8, 8, 3), "uint8"))
    assert pace.epoch_seconds(Model(), images, 10) == 20.0
    assert fitted == [200, 200]

    made = []
    monkeypatch.setattr(presets, "make", made.append)
    monkeypatch.setattr(pace, "_recipe_seconds", lambda *_: 20.0)
    monkeypatch.setattr(
        pace.concurrent.futures,
        "ProcessPoolExecutor",
        lambda *_, **__: concurrent.futures.ThreadPoolExecutor(1),
    )
    parser = argparse.ArgumentParser()
    presets.add_arguments(parser)
    options = ["--only", "simclr", "--scale", "cifar", "--minutes", "8"]
    assert presets.main(parser.parse_args(options)) == 0
    assert made[0].recipe.epochs == 21  # 0.9 of 480 seconds.
    assert made[0].name == "simclr_resnet_18_small_cifar10_21_epochs"
    presets.main(parser.parse_args(["--scale", "fast"]))
    assert [task.name for task in made[1:]] == [
        "simclr_resnet_nano_cifar10_fast"
    ]


@once
def test_a_preset_goes_on_from_that_of_another_scale(
    load, monkeypatch, tmp_path
):
    load("results")
    presets = load("trainings.presets")
    made, commands = [], []
    monkeypatch.setattr(presets, "make", made.append)
    monkeypatch.setattr(presets, "kerassl", lambda *w: commands.append(w))
    parser = argparse.ArgumentParser()
    presets.add_arguments(parser)
    options = ["--scale", "fast_32px", "--runs", str(tmp_path)]
    assert presets.main(parser.parse_args(options)) == 0
    (task,) = made
    assert task.name == "simclr_resnet_nano_cifar10_fast_32px"
    assert task.recipe.encoder == "weights"
    assert task.recipe.image_size == 32
    assert task.architecture == "resnet_nano"
    presets.train(task)
    assert made[1:] == [task.start]
    (command,) = commands
    assert command[:4] == ("pretrain", "simclr", "--recipe", "cpu")
    assert command[-2:] == ("--from", "simclr_resnet_nano_cifar10_fast")
    # Another seed has a start of its own, which isn't a preset.
    again = presets.plan(
        "simclr", "fast_32px", parser.parse_args([*options, "--seed", "1"])
    )
    presets.train(again)
    first, second = commands[1:]
    assert first[:4] == ("pretrain", "simclr", "--recipe", "fast")
    assert first[-2:] == second[-4:-2] == ("--seed", 1)
    assert second[-2:] == ("--from", again.start.folder)
    with pytest.raises(ValueError, match="from random weights"):
        presets.main(parser.parse_args([*options, "--minutes", "8"]))


@once
def test_each_encoder_is_trained_with_all_labels_once(load, monkeypatch):
    load("results")
    presets = load("trainings.presets")
    trained = []
    monkeypatch.setattr(presets, "supervise", trained.append)
    parser = argparse.ArgumentParser()
    presets.add_arguments(parser)
    options = ["--supervised", "--only", "simclr", "visreg", "mae"]
    assert presets.main(parser.parse_args(options)) == 0
    found = [(task.recipe.encoder, task.recipe.method) for task in trained]
    assert found == [("resnet_nano", "simclr"), ("vit_nano", "mae")]


@once
def test_transfer_scores_an_encoder_on_other_images(
    load, monkeypatch, tmp_path
):
    script = load("transfer")
    files = script.write_digits(tmp_path)
    digits = {split: np.load(path) for split, path in files.items()}
    assert digits["train"]["images"].shape == (1000, 32, 32, 3)
    assert digits["test"]["images"].shape == (797, 32, 32, 3)
    assert digits["test"]["images"].max() == 255
    encoder = tmp_path / "encoder.keras"
    kerassl.encoders.build("resnet_nano", (32, 32, 3)).save(encoder)
    subject = kerassl.runs.Evaluation(
        encoder, train=files["train"], test=files["test"]
    )
    knn = kerassl.runs.protocol("knn").score(subject, subject.encoder)
    assert knn["accuracy"] > 0.7  # Of ten classes, with random weights.


@once
def test_the_order_of_methods_is_compared_on_other_images(
    load, monkeypatch, tmp_path
):
    load("results")
    page = load("pages.benchmark")
    presets = page.trained()[:3]
    lines = [
        {"name": info["name"], "weights": weights, "a": a, "b": b}
        for info, weights, a, b in zip(
            presets,
            map(load("results").weights_hash, presets),
            (0.9, 0.8, 0.7),
            (0.1, 0.2, 0.3),
        )
    ]
    lines.append(
        {"name": "random, resnet_nano", "weights": None, "a": 0, "b": 0}
    )
    stale = {**lines[0], "weights": "of an earlier training", "a": 0.0}
    monkeypatch.setattr(page, "read_lines", lambda path: [*lines, stale])
    rows = page.transfer(presets).splitlines()
    assert len(rows) == 5
    assert rows[0].endswith("| 90.0 | 10.0 |")
    assert rows[3] == "| random, `resnet_nano` |  | 0.0 | 0.0 |"
    assert rows[4] == "| rank correlation |  | 1.00 | -1.00 |"


@more("tests of scripts/benchmark.py, whose parts it runs for two minutes")
def test_the_gpu_check_measures_and_trains(load, monkeypatch, tmp_path):
    script, results = load("gpu_check"), load("results")
    monkeypatch.setattr(script, "METHODS", ("simclr",))
    lines = tmp_path / "lines.jsonl"
    script.measure_all("torch", lines, small=True)
    script.train(lines, small=True, compiled=False, seconds=60)
    *steps, training = results.read_lines(lines)
    assert [step["batch"] for step in steps] == [16, 8]
    assert all(step["images_per_second"] > 0 for step in steps)
    assert training["epochs"] == 1 and training["precision"] == "float32"
    assert training["knn"] > training["untrained"] > 0.3
    missing = script.not_run(steps, small=True)
    assert "jax simclr 8" in missing and "training" in missing
    assert "torch simclr 8" not in missing
    # A part that fails is recorded, and the next one runs.
    monkeypatch.setattr(script, "METHODS", ("nothing", "simclr"))
    script.measure_all("torch", lines, small=True)
    failed = results.read_lines(lines)[3]
    assert "nothing" in failed["error"] and failed["method"] == "nothing"
    assert script.fastest([failed, *steps]) == "torch"
    assert script.fastest([]) == "torch"


@once
def test_calls_of_a_gpu_are_counted(load):
    count = load("gpu_check").count_calls
    calls = [
        ("cudaLaunchKernel", 7),
        ("cudaLaunchKernelExC", 2),
        ("cudaMemcpyAsync", 3),
        ("cudaMemcpy", 1),
        ("cudaStreamSynchronize", 4),
        ("aten::add", 9),
    ]
    assert count(calls) == {"kernels": 9, "waits": 5}


@once
def test_the_gpu_check_stops_in_time_and_saves(load, monkeypatch, tmp_path):
    script = load("gpu_check")
    started, now = [], [50.0]

    def run_part(part, backend, lines, small, seconds, save):
        started.append((part, backend, seconds))
        now[0] += 2
        if part == "jax":
            line = {"part": part, "method": "simclr", "batch": 16}
            load("results").append_line(
                lines, {**line, "images_per_second": 9.0}
            )
            # Whatever ends the script later, this line is in the file.
            save()
            assert len(load("results").read_json(output)["lines"]) == 1

    monkeypatch.setattr(script, "run_part", run_part)
    clock = types.SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr(script, "time", clock)
    output = tmp_path / "check.json"
    script.check(output, small=True, seconds=100)
    assert [part for part, _, _ in started][-1] == "training"
    # The training runs on the fastest, and has what is left of the time.
    assert started[-1][1:] == ("jax", 100 - 2 * len(script.PARTS))
    # What a part leaves is the next one's.
    shares = [seconds for _, _, seconds in started]
    assert shares[0] == pytest.approx(22) and shares == sorted(shares)
    saved = load("results").read_json(output)
    assert len(saved["lines"]) == 1 and "jax simclr 16" not in saved["not_run"]
    assert os.listdir(tmp_path) == ["check.json"]


# Stands for a part's process: a slow one, one that fails, and one that ends.
MEASURING = """
import json, sys, time
lines = open(sys.argv[1], "a+")
lines.seek(0)
count = len(lines.readlines())
methods = ("byol", 16) if count == 1 else ("byol", 8)
if count == 0:
    time.sleep(600)
line = dict(part="torch", method=methods[0], batch=methods[1])
lines.write(json.dumps(line) + "\\n")
lines.close()
sys.exit(3 if count == 1 else 0)
"""


@once
def test_the_gpu_check_goes_on_after_what_is_slow_or_fails(
    load, monkeypatch, tmp_path
):
    script, start = load("gpu_check"), subprocess.Popen
    lines, saved = tmp_path / "lines.jsonl", []

    def fake(command, env):
        assert env["KERAS_BACKEND"] == "torch"
        return start([sys.executable, "-c", MEASURING, lines])

    monkeypatch.setattr(script.subprocess, "Popen", fake)
    monkeypatch.setattr(script, "METHODS", ("simclr", "byol"))
    monkeypatch.setattr(script, "PATIENCE", 0.02)

    def save():
        saved.append(len(script.read_lines(lines)))

    script.run_part("torch", "torch", lines, True, 200, save)
    found = script.read_lines(lines)
    assert [
        (x["method"], x["batch"], x.get("error", "")[:7]) for x in found
    ] == [
        ("simclr", 16, "stopped"),
        ("byol", 16, ""),
        ("simclr", 8, "the pro"),
        ("byol", 8, ""),
    ]
    assert set(saved) >= {1, 2, 3, 4}
    assert not script.left_over("torch", found, small=True)


@once
@pytest.mark.skipif(
    "cpu" not in environment()["device"], reason="there is a GPU"
)
def test_the_gpu_check_needs_a_gpu(load, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit):
        load("gpu_check").main()
    assert "found no GPU. --small" in capsys.readouterr().err
