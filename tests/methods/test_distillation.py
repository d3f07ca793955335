"""What is distillation's own."""

import keras
import numpy as np
import pytest
from keras import ops

import kerassl
from tests.backends import once
from tests.contracts.methods import distillation, tiny_encoder
from tests.methods.formulas import six_steps_agree


def weights_of(network):
    return [ops.convert_to_numpy(w) for w in network.weights]


@once
def test_six_steps_on_the_papers_formulas():
    import torch

    seen = []

    def formula(outputs):
        p, t = outputs["prediction"], outputs["target"]
        seen.insert(0, t)
        # All batches so far, newest first, as many as fit.
        queue = torch.cat(seen)[:64]
        of_teacher = torch.softmax(t @ queue.T / 0.1, dim=1)
        p = p / p.norm(dim=1, keepdim=True)
        of_student = torch.softmax(p @ queue.T / 0.1, dim=1)
        ratio = torch.log(of_teacher) - torch.log(of_student)
        return (of_teacher * ratio).sum(1).mean()

    six_steps_agree(lambda: distillation(tiny_encoder()), formula)


def test_the_teacher_never_moves_and_has_its_own_size(images):
    # With moving statistics, which training mode would change.
    teacher = tiny_encoder((40, 40, 1))
    model = distillation(tiny_encoder(), teacher=teacher)
    before = weights_of(teacher)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(images, batch_size=16, verbose=0)
    for old, new in zip(before, weights_of(model.teacher)):
        np.testing.assert_array_equal(old, new)
    view = images[:4].astype("float32")
    outputs = model.forward_views({"view_1": ops.convert_to_tensor(view)}, True)
    resized = ops.image.resize(
        view, (40, 40), antialias=True, data_format="channels_last"
    )
    expected = ops.convert_to_numpy(teacher(resized, training=False))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = ops.convert_to_numpy(outputs["target"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_teacher_by_name_and_a_run_that_goes_on(tmp_path):
    encoder = kerassl.encoders.build("resnet_nano", (32, 32, 3))
    name = "simclr_resnet_nano_cifar10_fast_32px"
    model = kerassl.Distillation(encoder, teacher=name, queue_size=64)
    expected = weights_of(kerassl.load_encoder(name))
    for ours, theirs in zip(expected, weights_of(model.teacher)):
        np.testing.assert_array_equal(ours, theirs)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(expected, weights_of(again.teacher)):
        np.testing.assert_array_equal(ours, theirs)
    assert not again.teacher.trainable_weights
    assert again.encoder.trainable_weights


def test_wrong_arguments_are_refused(images):
    encoder = tiny_encoder()
    for wrong, message in (
        ({"temperature": 0.0}, "`temperature`"),
        ({"teacher": encoder}, "a second time"),
        ({"teacher": tiny_encoder((28, 28, 3))}, "of 3"),
    ):
        with pytest.raises(ValueError, match=message):
            distillation(encoder, **wrong)
    with pytest.raises(FileNotFoundError):
        distillation(encoder, teacher="no_such_preset")
    model = distillation(encoder, queue_size=8)
    model.compile("sgd")
    with pytest.raises(ValueError, match="larger `queue_size`"):
        model.fit(images, batch_size=16, verbose=0)
