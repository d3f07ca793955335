"""Retrieval, segmentation, and corrupted images."""

import numpy as np
import pytest

from kerassl import data, encoders, evaluation, runs
from kerassl.evaluation.scenes import DARK
from kerassl.evaluation.segmentation import enlarged


def test_average_precision_by_hand():
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(40, 5)), rng.normal(size=(70, 5))
    y, asked = rng.integers(0, 3, 40), rng.integers(0, 4, 70)
    expected = []
    for query, label in zip(queries, asked):
        cosines = bank @ query / np.linalg.norm(bank, axis=1)
        found, precisions = 0, []
        for rank, index in enumerate(np.argsort(-cosines), 1):
            if y[index] == label:
                found += 1
                precisions.append(found / rank)
        expected.append(np.mean(precisions) if precisions else 0)
    scores = evaluation.retrieval(bank, y, queries, asked)
    assert scores["accuracy"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert (scores["train_size"], scores["test_size"]) == (40, 70)
    # Features that are all the same find each class as often as chance does.
    same = evaluation.retrieval(
        np.zeros((6, 3)), [0, 0, 0, 1, 1, 2], np.zeros((3, 3)), [0, 1, 2]
    )
    assert same["accuracy"] == same["first"] == pytest.approx(1 / 3)
    perfect = evaluation.retrieval(np.eye(3), [0, 1, 2], np.eye(3), [0, 1, 2])
    assert perfect["accuracy"] == perfect["first"] == 1


def test_segmentation_of_maps_that_know_the_classes():
    """Each patch of 4 pixels has the features of its class, and noise."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (20, 4, 4))
    maps = np.eye(3)[classes] + rng.normal(0, 0.1, (20, 4, 4, 3))
    masks = classes.repeat(4, 1).repeat(4, 2)
    scores = evaluation.segmentation_probe(
        maps[:12], masks[:12], maps[12:], masks[12:]
    )
    # Only the borders between patches are smoothed.
    assert scores["miou"] > 0.75
    noise = rng.normal(size=maps.shape)
    nothing = evaluation.segmentation_probe(
        noise[:12], masks[:12], noise[12:], masks[12:]
    )
    assert nothing["miou"] < 0.35
    # By hand, with masks of the patches' size.
    exact = evaluation.segmentation_probe(
        maps[:12], classes[:12], maps[12:], classes[12:]
    )
    assert exact["miou"] == exact["pixel_accuracy"] == 1
    assert set(exact["ious"]) == {0, 1, 2}


def test_pixels_to_ignore_count_nowhere():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 2, (10, 4, 4))
    maps = np.eye(2)[classes]
    wrong = classes.copy()
    wrong[:, :2] = 255
    scores = evaluation.segmentation_probe(
        maps[:5], wrong[:5], maps[5:], wrong[5:], ignore=255
    )
    assert scores["miou"] == 1 and set(scores["ious"]) == {0, 1}
    wrong[:, 0] = 1 - classes[:, 0]
    scores = evaluation.segmentation_probe(
        maps[:5], classes[:5], maps[5:], wrong[5:], ignore=255
    )
    # A third of the pixels that count.
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)


def test_intersection_over_union_by_hand():
    maps = np.eye(2)[[[[0, 0, 1, 1]]] * 2]
    masks = np.array([[[0, 0, 1, 1]], [[0, 1, 1, 1]]])
    scores = evaluation.segmentation_probe(
        maps[:1], masks[:1], maps[1:], masks[1:]
    )
    assert scores["ious"] == {0: 1 / 2, 1: 2 / 3}


def test_maps_are_enlarged_as_by_pillow():
    from PIL import Image

    grid = np.random.default_rng(0).normal(size=(3, 5, 1)).astype("float32")
    image = Image.fromarray(grid[..., 0]).resize((20, 12), 2)
    found = enlarged(grid, (12, 20))[..., 0]
    np.testing.assert_allclose(found, image, atol=1e-5)


def test_segmentation_names_shapes_that_do_not_fit():
    maps, masks = np.zeros((2, 4, 4, 3)), np.zeros((2, 9, 8), int)
    with pytest.raises(ValueError, match="multiples of h and w.*9, 8"):
        evaluation.segmentation_probe(maps, masks, maps, masks)


def test_scenes_of_fashion():
    train = data.load("fashion_mnist_small", "train", limit=200)
    images, masks = evaluation.scenes(*train, count=6, size=48)
    assert images.shape == (6, 48, 48, 1) and masks.shape == (6, 48, 48)
    again, _ = evaluation.scenes(*train, count=6, size=48)
    np.testing.assert_array_equal(images, again)
    other, _ = evaluation.scenes(*train, count=6, size=48, seed=1)
    assert (images != other).any()
    assert set(np.unique(masks)) <= {0, *(1 + np.unique(train.labels))}
    # The pixels of an object are those of an image with the mask's label.
    for scene, mask in zip(*evaluation.scenes(*train, 6, size=48, objects=1)):
        _, label = np.unique(mask)
        found = scene[mask > 0]
        assert any(
            np.array_equal(image[image.max(-1) > DARK], found)
            for image in train.images[train.labels == label - 1]
        )
    assert 0.05 < (masks > 0).mean() < 0.7
    with pytest.raises(ValueError, match="larger `size`"):
        evaluation.scenes(*train, count=1, size=20)


@pytest.mark.parametrize("kind", evaluation.CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_corruption_grows_and_is_drawn_anew(kind, channels):
    images = data.load("fashion_mnist_small", "test", limit=4).images
    images = np.repeat(images, channels, axis=-1)
    images[2:] = images[0]
    changes = []
    for severity in (1, 3, 5):
        found = evaluation.corrupt(images, kind, severity)
        assert found.shape == images.shape and found.dtype == "uint8"
        again = evaluation.corrupt(images.astype("float32"), kind, severity)
        np.testing.assert_array_equal(found, again)
        changes.append(np.abs(found.astype(float) - images).mean())
    assert 0 < changes[0] < changes[1] < changes[2]
    drawn = {"noise", "glass", "motion", "snow", "fog", "elastic"}
    differs = (found[2] != found[3]).any()
    assert differs == any(word in kind for word in drawn)
    other = evaluation.corrupt(images, kind, 5, seed=1)
    assert (other != found).any() == differs


def test_corruptions_are_refused_by_name():
    images = np.zeros((1, 8, 8, 3), "uint8")
    with pytest.raises(ValueError, match="'frog'. Nearest: fog"):
        evaluation.corrupt(images, "frog")
    with pytest.raises(ValueError, match="between 1 and 5. Received: 6"):
        evaluation.corrupt(images, "fog", 6)
    noise = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
    for bad, message in (
        (noise, "looks scaled"),
        (300 * noise, r"\[0, 255\]"),
        (np.where(noise > 0.5, np.nan, noise), "NaN"),
        (data.ImageData(images), "Received: ImageData"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.corrupt(bad, "fog")


def test_the_protocols(tmp_path):
    encoder = encoders.build("resnet_nano", (28, 28, 1))
    encoder.save(tmp_path / "e.keras")
    subject = runs.Evaluation(
        tmp_path / "e.keras",
        "fashion_mnist_small",
        train_limit=100,
        test_limit=30,
    )
    protocol = runs.protocol("knn_corrupted", k=5, severity=5)
    scores = protocol.measure(subject)
    train, test = (
        encoders.embed(subject.encoder, subject.splits[split])
        for split in ("train", "test")
    )
    labels = [part.labels for part in subject.splits.values()]
    clean = evaluation.knn(train, labels[0], test, labels[1], k=5)
    assert scores["kinds"].pop("clean") == clean["accuracy"]
    assert list(scores["kinds"]) == list(evaluation.CORRUPTIONS)
    assert scores["accuracy"] == pytest.approx(
        np.mean(list(scores["kinds"].values()))
    )
    assert scores["accuracy"] < clean["accuracy"]
    assert "clean" in scores["untrained_kinds"]
    found = runs.protocol("retrieval").measure(subject)
    expected = evaluation.retrieval(train, labels[0], test, labels[1])
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)
    assert 0 < found["untrained_accuracy"] < 1
    with pytest.raises(ValueError, match="`severity` must be between"):
        runs.protocol("knn_corrupted", k=5, severity=6).check(subject)


def test_a_feature_that_is_dead_in_training_is_left_out():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(8, 4, 4, 3)).astype("float32")
    masks = (maps[..., 0] > 0).astype("int64")
    dead = np.full((8, 4, 4, 1), 0.3, "float32")
    alive = rng.normal(size=dead.shape).astype("float32")
    scores = [
        evaluation.segmentation_probe(
            np.concatenate([maps, dead], -1),
            masks,
            np.concatenate([maps, last], -1),
            masks,
        )["miou"]
        for last in (dead, alive)
    ]
    assert scores[0] == pytest.approx(scores[1]) and scores[0] > 0.8
