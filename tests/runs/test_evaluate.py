import json
import types

import keras
import numpy as np
import pytest
from keras import ops

from kerassl import (
    data,
    encoders,
    evaluation,
    load_encoder,
    recipes,
    runs,
)
from kerassl.runs.evaluate import untrained
from tests.backends import once
from tests.contracts.methods import tiny_encoder


@pytest.fixture(scope="module")
def encoder():
    return encoders.build("resnet_nano", (28, 28, 1))


@pytest.fixture(scope="module")
def folder(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save(folder / "encoder.keras")
    return folder


def test_load_encoder_takes_folders_files_and_training_models(
    encoder, folder, tmp_path
):
    images = data.load("fashion_mnist_small", limit=4).images
    expected = encoder.predict(images, verbose=0)
    recipe = recipes.get("simclr")
    model = recipes.build_model(recipe, (28, 28, 1), 1)
    model.encoder.set_weights(encoder.get_weights())
    model.save(tmp_path / "training.keras")
    for source in (
        folder,
        folder / "encoder.keras",
        tmp_path / "training.keras",
    ):
        loaded = load_encoder(source)
        np.testing.assert_allclose(
            loaded.predict(images, verbose=0), expected, atol=1e-5
        )


def test_load_encoder_says_what_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="Looked for .*encoder.keras"):
        load_encoder(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_encoder("nowhere")


def test_an_untrained_vit_starts_as_a_built_one():
    built = encoders.build("vit_nano", (32, 32, 3))
    for ours, its in zip(
        untrained(built).get_weights(), built.get_weights(), strict=True
    ):
        # The kernels; of few random numbers the deviation says little.
        if its.size > 4000:
            assert ours.std() == pytest.approx(its.std(), rel=0.05)


@once
def test_a_resnet_starts_as_the_papers_and_untrained_ones_too():
    built = encoders.build("resnet_18", (32, 32, 3))
    for model in (built, untrained(built)):
        backbone = model.get_layer("backbone")
        kernels = [w for w in backbone.weights if w.name == "kernel"]
        assert len(kernels) == 20
        for weight in kernels:
            kernel = ops.convert_to_numpy(weight)
            he = (2 / np.prod(kernel.shape[:-1])) ** 0.5
            assert kernel.std() == pytest.approx(he, rel=0.05)


def test_untrained_keeps_what_images_are_normalized_by():
    images = data.load("fashion_mnist_small", limit=32).images
    inputs = keras.Input((28, 28, 1))
    normalization = keras.layers.Normalization()
    x = keras.layers.Flatten()(normalization(inputs))
    normalization.adapt(images.astype("float32"))
    encoder = keras.Model(inputs, keras.layers.Dense(4)(x))
    new = untrained(encoder)
    found = new.layers[1](images.astype("float32"))
    assert float(ops.std(found)) == pytest.approx(1, abs=0.01)


def test_untrained_has_other_weights_and_always_the_same(encoder):
    first, second = untrained(encoder), untrained(encoder)
    kernels = [
        next(w for w in e.get_weights() if w.ndim == 4)
        for e in (encoder, first, second)
    ]
    assert (kernels[1] == kernels[2]).all()
    assert (kernels[0] != kernels[1]).any()


def test_knn(folder):
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=200, test_limit=100
    )
    protocol = runs.protocol("knn", k=5)
    protocol.check(subject)
    scores = protocol.measure(subject)
    assert 0.2 < scores["accuracy"] <= 1
    assert 0.2 < scores["untrained_accuracy"] <= 1
    assert (scores["k"], scores["train_size"], scores["test_size"]) == (
        5,
        200,
        100,
    )
    # The last stage is the encoder's output, and its pooled features.
    for key, last in (
        ("stages", scores["accuracy"]),
        ("untrained_stages", scores["untrained_accuracy"]),
    ):
        assert list(scores[key]) == ["stage1", "stage2", "stage3"]
        assert all(0.2 < value <= 1 for value in scores[key].values())
        assert scores[key]["stage3"] == pytest.approx(last, abs=0.011)
    best = scores["stages"][scores["best_stage"]]
    assert best == max(scores["stages"].values())
    json.dumps(scores)
    features = encoders.embed(subject.encoder, subject.splits["test"])
    rank = evaluation.effective_rank(features)
    assert scores["effective_rank"] == pytest.approx(rank, rel=1e-3)
    # As from whole arrays.
    for layer, value in [(None, scores["accuracy"]), *scores["stages"].items()]:
        bank, test = (
            encoders.embed(subject.encoder, subject.splits[split], layer)
            for split in ("train", "test")
        )
        whole = evaluation.knn(
            bank,
            subject.splits["train"].labels,
            test,
            subject.splits["test"].labels,
            k=5,
        )
        assert whole["accuracy"] == pytest.approx(value, abs=0.011)
    with pytest.raises(ValueError, match="`k` must be between 1 and the 200"):
        runs.protocol("knn", k=201).check(subject)
    with pytest.raises(ValueError, match="`temperature`"):
        runs.protocol("knn", temperature=0.0).check(subject)


def test_linear(folder):
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=300, test_limit=100
    )
    protocol = runs.protocol("linear", per_class=5, seeds=2)
    protocol.check(subject)
    scores = protocol.measure(subject)
    json.dumps(scores)
    train, test = subject.features(subject.encoder)
    labels, truth = (subject.splits[s].labels for s in ("train", "test"))
    found = []
    for seed in range(2):
        rows = evaluation.few_labels(labels, per_class=5, seed=seed)
        found.append(
            evaluation.linear_probe(
                train[rows], labels[rows], test, truth, seed=seed
            )["accuracy"]
        )
    assert scores["accuracy"] == pytest.approx(np.mean(found))
    assert scores["std"] == pytest.approx(np.std(found, ddof=1))
    assert 0.2 < scores["untrained_accuracy"] < 1
    assert (scores["seeds"], scores["train_size"]) == (2, 50)
    assert protocol.suffix == "_5_per_class"
    stage = runs.protocol("linear", labels=0.1, layer="stage1")
    assert stage.suffix == "_10%_stage1"
    with pytest.raises(ValueError, match="stage7"):
        runs.protocol("linear", layer="stage7").check(subject)
    found = stage.measure(subject)
    assert found["layer"] == "stage1" and "std" not in found
    assert 27 <= found["train_size"] <= 33  # Each class is rounded.
    with pytest.raises(ValueError, match="class . has .. images"):
        runs.protocol("linear", per_class=90).check(subject)
    with pytest.raises(ValueError, match="`labels` must be in"):
        runs.protocol("linear", labels=2.0).check(subject)
    with pytest.raises(ValueError, match="`seeds`"):
        runs.protocol("finetune", seeds=0).check(subject)
    wide = types.SimpleNamespace(
        encoder=encoders.build("resnet_nano", (24, 40, 1))
    )
    with pytest.raises(ValueError, match=r"\(24, 40, 1\)"):
        runs.protocol("finetune").check(wide)
    with pytest.raises(ValueError, match="one of `labels` and `per_class`"):
        runs.protocol("linear", labels=0.5, per_class=5).check(subject)


def test_scores_of_another_range_are_others(encoder, folder, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 4000, (40, 28, 28, 1)).astype("uint16")
    np.savez(tmp_path / "x.npz", x_train=images, y_train=np.arange(40) % 2)
    found = []
    for high in (4000, 3000):
        subject = runs.Evaluation(
            folder, str(tmp_path / "x.npz"), value_range=(0, high)
        )
        protocol = runs.protocol("knn")
        assert protocol.settings(subject)["range"] == f"0 to {high}"
        found.append((protocol, subject))
    floor = {**protocol.settings(subject), "untrained_accuracy": 0.5}
    protocol.check(subject, floor)
    with pytest.raises(ValueError, match="range 0 to 3000.* 0 to 4000"):
        found[0][0].check(found[0][1], floor)
    plain = runs.Evaluation(folder, "fashion_mnist_small", train_limit=40)
    assert "range" not in protocol.settings(plain)
    floor = {**protocol.settings(plain), "range": "0 to 3000"}
    with pytest.raises(ValueError, match="range 0 to 3000.* with None"):
        protocol.check(plain, floor)


def test_a_share_of_labels_is_what_it_says(folder):
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=300, test_limit=10
    )
    counts = np.bincount(subject.splits["train"].labels)
    for labels, message in (
        (1e-5, "1e-05 of each class.*less than one image. Give at least 0.0"),
        (0.49 / counts.max(), "less than one image"),
        (0.9999, "that is all 300"),
        (1e-400, "`labels` must be in"),
        (float("nan"), "`labels` must be in"),
        (1.5, "`labels` must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            runs.protocol("linear", labels=labels).check(subject)
    fitting = runs.protocol("linear", labels=1 / counts.max())
    fitting.check(subject)
    assert fitting.settings(subject)["train_size"] == 10
    # Of some classes that is less than half an image.
    subject.splits["train"] = subject.splits["train"].select(
        np.r_[0:300, np.flatnonzero(subject.splits["train"].labels)]
    )
    few = runs.protocol("linear", labels=0.51 / counts[1:].max() / 2)
    few.check(subject)
    (note,) = few.notes(subject)
    assert "of 10 classes have so few training images" in note
    assert not runs.protocol("linear").notes(subject)
    (note,) = runs.protocol("linear", seeds=3).notes(subject)
    assert "uses all labels" in note
    assert not runs.protocol("finetune", seeds=3).notes(subject)


def test_scores_have_names_of_their_own():
    suffixes = [
        runs.protocol("linear", labels=labels).suffix
        for labels in (1.0, 0.01, 0.07, 0.1, 0.125, 1e-7, 0.1234567, 0.1234568)
    ]
    assert suffixes[:5] == ["", "_1%", "_7%", "_10%", "_12.5%"]
    assert suffixes[5:] == ["_0.00001%", "_12.34567%", "_12.34568%"]
    assert runs.protocol("linear", labels=0.9999999).suffix == "_99.99999%"


def test_fine_tuning_beside_training_from_scratch(folder, monkeypatch):
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=100, test_limit=40
    )
    calls = []

    def recorded(encoder, train, test, **settings):
        calls.append((encoder, len(train.labels), settings))
        score = {"accuracy": 0.1 * len(calls), "learning_rate": 0.3}
        return score | dict(epochs=1, train_size=100, test_size=40)

    monkeypatch.setattr(evaluation, "fine_tune", recorded)
    protocol = runs.protocol("finetune", labels=0.5, seeds=2, epochs=1)
    scores = protocol.measure(subject)
    assert scores["accuracy"] == pytest.approx(0.15)
    assert scores["untrained_accuracy"] == pytest.approx(0.35)
    assert scores["std"] == pytest.approx(0.1 / 2**0.5)
    encoders_used = [call[0] for call in calls]
    assert encoders_used[:2] == [subject.encoder] * 2
    assert encoders_used[2] is encoders_used[3] is not subject.encoder
    # The rate is chosen with the first labels alone.
    rates = [call[2]["learning_rate"] for call in calls]
    assert rates == [None, 0.3, None, 0.3]
    assert all(not call[2]["frozen"] for call in calls)
    assert scores["epochs"] == 1
    with pytest.raises(ValueError, match="with epochs 1, and .* with 500"):
        # 50 images are one step.
        runs.protocol("finetune", labels=0.5, seeds=2).check(subject, scores)
    runs.protocol("linear_sgd", epochs=1).measure(subject)
    assert all(call[2]["frozen"] for call in calls[4:])


def test_random_weights_are_measured_once(folder, monkeypatch):
    subject = runs.Evaluation(
        folder, "fashion_mnist_small", train_limit=100, test_limit=40
    )
    protocol = runs.protocol("linear", per_class=2, seeds=2)
    scores = protocol.measure(subject)
    monkeypatch.setattr(runs.protocols.base, "untrained", None)
    floor = {**scores, "untrained_accuracy": 0.125}
    protocol.check(subject, floor)
    assert protocol.measure(subject, floor) == floor
    with pytest.raises(ValueError, match="with seeds 2, and .* with 3"):
        runs.protocol("linear", per_class=2, seeds=3).check(subject, floor)


def test_earlier_scores(folder, tmp_path):
    subject = runs.Evaluation(folder, "fashion_mnist_small", test_limit=40)
    own = {"data": "fashion_mnist_small", "accuracy": 0.5}
    other = {"data": "cifar10", "accuracy": 0.75}
    (tmp_path / "scores.json").write_text(
        json.dumps({"knn": own, "knn, cifar10": other})
    )
    encoders.build("resnet_nano", (28, 28, 1)).save(tmp_path / "encoder.keras")
    for data_name, score in (("fashion_mnist_small", own), ("cifar10", other)):
        found = runs.earlier_scores(tmp_path, data_name, subject.encoder)
        assert found == {"knn": score}
    assert not runs.earlier_scores(tmp_path, "mnist", subject.encoder)
    for other, message in (
        (tiny_encoder(), "has another architecture: .*resnet"),
        (
            encoders.build("resnet_nano", (32, 32, 1)),
            "of shape .32, 32, 1. ins",
        ),
    ):
        other.save(tmp_path / "encoder.keras")
        with pytest.raises(ValueError, match=message):
            runs.earlier_scores(tmp_path, "cifar10", subject.encoder)


def test_random_weights_of_other_settings_are_not_taken_over(tmp_path):
    """The same shapes, and other numbers."""

    def made(strides, initializer="glorot_uniform", name=None, divisor=255):
        inputs = keras.Input((28, 28, 1))
        x = keras.layers.Conv2D(
            4, 3, strides, "same", kernel_initializer=initializer, name=name
        )(inputs / divisor)
        return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))

    (tmp_path / "scores.json").write_text("{}")
    made(2).save(tmp_path / "encoder.keras")
    same = made(2, name="other_name")
    same.trainable = False
    assert runs.earlier_scores(tmp_path, "mnist", same) == {}
    for other in (made(1), made(2, "he_normal"), made(2, divisor=127)):
        with pytest.raises(ValueError, match="or other settings"):
            runs.earlier_scores(tmp_path, "mnist", other)


def test_an_encoder_that_diverged_is_refused(tmp_path):
    encoder = tiny_encoder()
    encoder.weights[0].assign(np.full(encoder.weights[0].shape, np.nan))
    encoder.save(tmp_path / "e.keras")
    with pytest.raises(ValueError, match="NaN or infinite.*diverged"):
        runs.Evaluation(tmp_path / "e.keras", "fashion_mnist_small")


def a_few_images(encoder, folder):
    """The evaluation of an encoder on a few images."""
    encoder.save(folder / "e.keras")
    return runs.Evaluation(
        folder / "e.keras",
        "fashion_mnist_small",
        train_limit=100,
        test_limit=50,
    )


def test_an_encoder_without_stages(tmp_path):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    encoder = keras.Model(inputs, keras.layers.Dense(8)(x))
    subject = a_few_images(encoder, tmp_path)
    scores = runs.protocol("knn", k=5).measure(subject)
    assert scores["stages"] == scores["untrained_stages"] == {}
    assert scores["best_stage"] is None
    assert 0.2 < scores["accuracy"] <= 1


def test_knn_of_an_output_that_no_layer_returns(tmp_path):
    inputs = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 5, 4)(inputs / 255)
    means = keras.layers.GlobalAveragePooling2D()(x)
    encoder = keras.Model(inputs, means + keras.layers.GlobalMaxPooling2D()(x))
    subject = a_few_images(encoder, tmp_path)
    scores = runs.protocol("knn", k=5).measure(subject)
    assert len(scores["stages"]) == 1
    features = encoders.embed(encoder, subject.splits["test"])
    rank = evaluation.effective_rank(features)
    assert scores["effective_rank"] == pytest.approx(rank, rel=1e-3)


def test_protocols_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="no protocol 'kmm'.*knn"):
        runs.protocol("kmm")


def test_data_are_checked_before_any_work(folder, tmp_path):
    path = tmp_path / "color.npz"
    images = np.arange(10 * 28 * 28 * 3, dtype="uint8").reshape(10, 28, 28, 3)
    labels = np.arange(10)
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(ValueError, match="1 channels.* have 3"):
        runs.Evaluation(folder, str(path))
