"""What is NNCLR's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from tests.contracts.methods import nnclr, tiny_encoder


def ready_views(images):
    x = images.astype("float32")
    return {"view_1": x, "view_2": x[:, :, ::-1].copy()}


def unit(rows):
    rows = np.asarray(rows, "float64")
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loops(neighbors, predictions, temperature):
    """One direction of the loss, and its accuracy, from the formula."""
    losses, hits = [], []
    for i, neighbor in enumerate(neighbors):
        logits = [float(neighbor @ p) / temperature for p in predictions]
        losses.append(np.log(np.sum(np.exp(logits))) - logits[i])
        hits.append(np.argmax(logits) == i)
    return np.mean(losses), np.mean(hits)


def test_a_step_compares_neighbors_and_then_fills_the_queue(images):
    model = nnclr(tiny_encoder(), queue_size=40)
    queue = ops.convert_to_numpy(model.queue.features)
    for batch in (images[:16], images[16:32]):
        views = {
            k: ops.convert_to_tensor(v) for k, v in ready_views(batch).items()
        }
        z, p = [], []
        for view in views.values():
            projection = model.projector(
                model.encoder(view, training=True), training=True
            )
            z.append(unit(ops.convert_to_numpy(projection)))
            prediction = model.predictor(projection, training=True)
            p.append(unit(ops.convert_to_numpy(prediction)))
        nearest = [
            np.stack(
                [queue[np.argmax([row @ q for q in queue])] for row in rows]
            )
            for rows in z
        ]
        scalars = model.objective(model.forward_views(views, training=True))
        first, second = (
            by_loops(nearest[i], p[1 - i], model.temperature) for i in (0, 1)
        )
        expected = {
            "loss": (first[0] + second[0]) / 2,
            "contrastive_accuracy": (first[1] + second[1]) / 2,
            "neighbor_similarity": np.mean(np.sum(z[0] * nearest[0], axis=1)),
        }
        assert set(scalars) == set(expected)
        for name, value in expected.items():
            assert float(scalars[name]) == pytest.approx(value, rel=1e-4), name
        # View 1 only, newest first.
        after = ops.convert_to_numpy(model.queue.features)
        np.testing.assert_allclose(after[:16], z[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(after[16:], queue[:-16])
        queue = after
    model.forward_views(views, training=False)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.queue.features), queue
    )


def test_the_heads_are_the_papers():
    model = nnclr(tiny_encoder())
    shapes = [
        [tuple(w.shape) for w in head.weights if len(w.shape) == 2]
        for head in (model.projector, model.predictor)
    ]
    assert shapes == [[(24, 16), (16, 16), (16, 8)], [(8, 16), (16, 8)]]
    last = model.projector.stack[-1]
    assert isinstance(last, keras.layers.BatchNormalization)
    assert last.scale and last.center
    assert isinstance(model.predictor.stack[-1], keras.layers.Dense)


def test_wrong_arguments_are_refused(images):
    with pytest.raises(ValueError, match="temperature"):
        kerassl.NNCLR(tiny_encoder(), temperature=0.0)
    model = nnclr(tiny_encoder(), queue_size=40)
    model.compile("sgd")
    with pytest.raises(ValueError, match="larger `queue_size`"):
        model.fit(images, batch_size=64, verbose=0)
