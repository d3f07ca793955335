"""Encoders measured side by side, and what that allows one to say."""

import json

import keras_hub
import numpy as np
import pytest
from PIL import Image

from kerassl import encoders, runs
from kerassl.cli.main import main
from kerassl.run_folder import read_scores
from kerassl.runs import comparison, rivals

FASHION = "fashion_mnist_small"
LIMITS = ("--train-limit", "100", "--test-limit", "40")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "encoder.keras"
    encoders.build("resnet_nano", (28, 28, 1)).save(path)
    return path


def test_a_rival_gets_its_own_size_and_colors(own, tmp_path):
    subject = runs.Evaluation(own, FASHION, train_limit=9, test_limit=5)
    rival = encoders.build("resnet_nano", (16, 16, 3))
    rival.save(tmp_path / "rival.keras")
    other = subject.beside(runs.open_rival(tmp_path / "rival.keras"))
    train, test = other.features(other.encoder)
    images = np.repeat(subject.splits["test"].images, 3, axis=-1)
    small = [Image.fromarray(i).resize((16, 16), 2) for i in images]
    expected = rival.predict(np.stack(list(map(np.asarray, small))), verbose=0)
    # PIL rounds to whole numbers.
    np.testing.assert_allclose(test, expected, atol=0.02)
    assert len(train) == 9
    # The same images need no copy.
    same = subject.beside(runs.open_rival(own))
    assert same.splits is subject.splits
    assert same.encoder.input_shape == subject.encoder.input_shape


def test_photos_are_decoded_for_each(tmp_path):
    """Not made small for one and large again for the other."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), "uint8")
    for number, image in enumerate(pixels):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(path)
    for size in (8, 40):
        encoder = encoders.build("resnet_nano", (size, size, 3))
        encoder.save(tmp_path / f"{size}.keras")
    subject = runs.Evaluation(
        tmp_path / "8.keras", f"folder:{tmp_path / 'photos'}"
    )
    other = subject.beside(runs.open_rival(tmp_path / "40.keras"))
    assert subject.splits["test"].image_shape == (8, 8, 3)
    images = np.asarray(other.splits["test"].images)
    assert all((pixels == image).all(axis=(1, 2, 3)).any() for image in images)


def test_colors_are_not_made_gray(own):
    with pytest.raises(ValueError, match="1 channels"):
        rivals.open_rival(own).at((28, 28, 3))


def test_a_preset_of_kerashub_keeps_its_preprocessing(tmp_path):
    backbone = keras_hub.models.ResNetBackbone(
        [64], [3], [64], [1], [1], "basic_block", image_shape=(None, None, 3)
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(24, 24),
        scale=1 / 50,
        offset=-2.0,
        interpolation="bicubic",
        crop_to_aspect_ratio=False,
    )
    backbone.save_to_preset(tmp_path)
    converter.save_to_preset(tmp_path)
    images = np.random.default_rng(0).uniform(0, 255, (2, 20, 28, 3))
    expected = backbone.predict(converter(images), verbose=0).mean((1, 2))
    encoder = rivals.open_rival(f"hub:{tmp_path}").at((20, 28, 3))
    found = encoder.predict(images, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_released_weights_that_cannot_be_fetched(own, capsys, monkeypatch):
    def unreachable(name, **options):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", unreachable)
    words = ["evaluate", str(own), "--data", FASHION, *LIMITS]
    assert main([*words, "--beside", "random,dinov2_small"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == (
        "kerassl: error: KerasHub's preset dinov2_small can't be fetched "
        "(ConnectionError). Without a connection, give the folder of a copy: "
        "hub:PATH."
    )


def test_names_are_short_and_differ():
    sources = ["random", "runs/a", "hf://b/c", "hub:d", "hub:/home/x/y"]
    names = {"a": "runs/a", "hf://b/c": "hf://b/c", "hub:d": "hub:d"}
    names["y"] = "hub:/home/x/y"
    assert rivals.rival_names(sources) == names
    with pytest.raises(ValueError, match="runs/a and other/a"):
        rivals.rival_names(["runs/a", "other/a"])


def test_the_command_shows_all_three(own, tmp_path, capsys):
    encoders.build("resnet_nano", (20, 20, 1)).save(tmp_path / "small.keras")
    words = ["evaluate", str(own), "--data", FASHION, *LIMITS, "--json"]
    words += ["--protocol", "knn,linear", "--per-class", "3", "--seeds", "2"]
    words += ["--k", "5", "--beside", f"random,{tmp_path / 'small.keras'}"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    for name in ("knn", "linear_3_per_class"):
        score = found[name]["beside"]["small.keras"]
        row = next(x for x in lines if x.startswith(f"{name} of small.keras "))
        assert row.split()[3] == f"{score['accuracy']:.4f}"
    few = found["linear_3_per_class"]
    draws = few["beside"]["small.keras"]["draws"]
    assert len(draws) == len(few["draws"]) == len(few["untrained_draws"]) == 2
    error = np.std(draws, ddof=1) / 2**0.5
    assert f"standard error {error:.4g}" in row
    said = [x for x in lines if "this encoder is" in x]
    assert [x.split(":")[0] for x in said] == ["knn", "linear_3_per_class"]
    assert "random weights" in said[0] and "small.keras" in said[0]


def scores(own, floor, rival, size=1000):
    """Returns scores from the accuracies of each draw."""
    mean = [float(np.mean(draws)) for draws in (own, floor, rival)]
    return {
        "accuracy": mean[0],
        "draws": own,
        "untrained_accuracy": mean[1],
        "untrained_draws": floor,
        "test_size": size,
        "beside": {"dinov2": {"accuracy": mean[2], "draws": rival}},
    }


@pytest.mark.parametrize(
    "accuracies, parts, verdict",
    [
        (
            ([0.6, 0.62], [0.3, 0.32], [0.4, 0.42]),
            "30.0 ± 4.2 points above random weights and 20.0 ± 4.3 points "
            "above dinov2",
            "it was worth training",
        ),
        (
            ([0.6, 0.62], [0.3, 0.32], [0.8, 0.82]),
            "below dinov2",
            "have served",
        ),
        (
            ([0.6, 0.7], [0.3, 0.32], [0.6, 0.6]),
            "level with dinov2",
            "undecided",
        ),
        (([0.6, 0.6], [0.6, 0.6], [0.5, 0.5]), "level with random", "Nothing"),
    ],
)
def test_what_the_numbers_allow(accuracies, parts, verdict):
    (said,) = comparison.statements({"linear_1%": scores(*accuracies)})
    assert parts in said and verdict in said
    assert "2 seeds and 1,000 test images" in said


def test_the_interval_holds_as_often_as_it_says():
    """For two encoders that are equally good, with new labels and images."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        shared = rng.normal(0, 0.03, 3)
        a, b = np.clip(
            rng.binomial(500, 0.6, 2)[:, None] / 500
            + shared
            + rng.normal(0, 0.02, (2, 3)),
            0,
            1,
        )
        one, other = (dict(accuracy=x.mean(), draws=x) for x in (a, b))
        above, margin = comparison.difference(one, other, 500)
        held += abs(above) <= margin
    assert 0.94 <= held / 400 <= 0.995


def test_scores_by_hand_are_refused_by_name(tmp_path):
    (tmp_path / "scores.json").write_text(
        json.dumps({"knn": {"accuracy": 0.5, "beside": {"x": {}}}})
    )
    with pytest.raises(ValueError, match="beside.*a dict with an accuracy"):
        read_scores(tmp_path)


def test_nothing_is_said_without_rivals():
    assert not list(comparison.statements({"knn": {"accuracy": 0.5}}))


def test_few_images_and_scores_near_the_end_of_the_scale():
    one = comparison.difference({"accuracy": 1.0}, {"accuracy": 0.0}, 1)
    assert one[0] < one[1]
    # Fisher's exact test gives p = 0.106.
    above, margin = comparison.difference(
        {"accuracy": 1.0}, {"accuracy": 0.8}, 20
    )
    assert above < margin


def test_a_floor_that_kept_only_its_standard_deviation():
    own = {"accuracy": 0.52, "draws": [0.5, 0.52, 0.54]}
    floor = {"accuracy": 0.26, "std": 0.0276}
    variance = (0.02**2 + 0.0276**2) / 3
    expected = np.sqrt(4.303**2 * variance + 1.96**2 * 0.0000443)
    margin = comparison.difference(own, floor, 10_000)[1]
    assert margin == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("source", ["encoder", "a/random weights/"])
def test_an_encoder_beside_may_not_be_called_as_ones_own(source):
    with pytest.raises(ValueError, match="Rename"):
        rivals.rival_names([source])


def test_the_folder_of_an_encoder_beside_is_its_name(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert rivals.rival_names(["."]) == {"mine": "."}
