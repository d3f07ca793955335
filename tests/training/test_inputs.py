"""What `fit` refuses before it starts."""

import keras
import numpy as np
import pytest

from kerassl.training import check_first_batch

GOOD = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")
SCALED = GOOD.astype("float32") / 255


class Batches(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.images, np.zeros(len(self.images))


def as_tf_data(images):
    tf = pytest.importorskip("tensorflow")
    labels = np.zeros(len(images))
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(3)


def as_loader(images):
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.from_numpy(images), batch_size=3)


FORMS = [np.asarray, Batches, as_tf_data, as_loader, lambda x: {"image": x}]


@pytest.mark.parametrize("form", FORMS)
def test_good_images_pass(form):
    check_first_batch(form(GOOD), 3)
    check_first_batch(form(GOOD.astype("float32")), 3)


@pytest.mark.parametrize("form", FORMS)
def test_scaled_images_are_refused(form):
    with pytest.raises(ValueError, match="255"):
        check_first_batch(form(SCALED), 3)


@pytest.mark.parametrize("form", FORMS)
def test_channels_first_is_refused(form):
    images = GOOD.transpose(0, 3, 1, 2).astype("float32")
    with pytest.raises(ValueError, match="channels"):
        check_first_batch(form(images), 3)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 channels"):
        check_first_batch(GOOD, 1)


def test_views_and_generators_pass_untouched():
    check_first_batch({"view_1": SCALED, "view_2": SCALED}, 3)
    generator = (x for x in [SCALED])
    check_first_batch(generator, 3)
    assert next(generator) is SCALED
