"""Copies to a GPU: a fake one notes what is copied, and when."""

import contextlib

import keras
import numpy as np
import pytest

from kerassl import data
from kerassl.training import inputs as inputs_module
from kerassl.training import uploads as uploads_module
from kerassl.training.inputs import Inputs
from kerassl.training.uploads import Uploads, rows_ahead, uploads
from tests.contracts.methods import simclr, tiny_encoder

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="others copy ahead on their own"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype("uint8")
IMAGES.flags.writeable = False  # As those of a file in memory.


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that there is a GPU, and returns the list of what happens."""
    notes = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def record_event(self):
            return f"event {sum(note == 'copy' for note in notes)}"

        def wait_event(self, event):
            notes.append(f"step waits for {event}")

    @contextlib.contextmanager
    def stream(own):
        notes.append("stream")
        yield
        notes.append("end of stream")

    def empty(*args, pin_memory=False, **kwargs):
        notes.extend(["pin"] * pin_memory)
        return real_empty(*args, **kwargs)

    def to(self, *args, **kwargs):
        if args == ("a gpu",):
            assert kwargs == {"non_blocking": True}
            notes.append("copy")
            return self.clone()
        return real_to(self, *args, **kwargs)

    real_empty, real_to = torch.empty, torch.Tensor.to
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(
        torch.Tensor, "pin_memory", lambda x: notes.append("pin") or x
    )
    for name, fake in (
        ("Stream", Stream),
        ("stream", stream),
        ("current_stream", Stream),
    ):
        monkeypatch.setattr(torch.cuda, name, fake)
    fake = Uploads("a gpu")
    for module in (inputs_module, uploads_module):
        monkeypatch.setattr(module, "uploads", lambda: fake)
    return notes


def first_of(batches):
    return [np.asarray(batch[0]) for batch in batches]


def assert_ahead(notes, count):
    """Each batch is copied before the step of the one before may begin."""
    waits = [note for note in notes if note.startswith("step")]
    assert waits == [f"step waits for event {i + 1}" for i in range(count)]
    for i, wait in enumerate(waits):
        begun = notes[: notes.index(wait)].count("copy")
        assert begun >= min(i + 2, count)
    copied = ["stream", "pin", "copy", "end of stream"]
    assert [note for note in notes if note not in waits] == copied * count


def test_nothing_is_copied_without_a_gpu(monkeypatch):
    assert uploads() is None

    def fail(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(torch.Tensor, "pin_memory", fail)
    monkeypatch.setattr(torch.cuda, "Stream", fail)
    batches = data.ImageData(IMAGES).batches(2)
    for given in (batches, (IMAGES[i : i + 2] for i in (0, 2, 4))):
        read = Inputs((8, 8, 3)).read(given)
        found = (
            first_of(read[i] for i in range(3))
            if given is batches
            else (first_of(read))
        )
        np.testing.assert_array_equal(np.concatenate(found), IMAGES)
        assert type(found[0]) is np.ndarray


def test_batches_are_copied_one_step_ahead(gpu):
    batches = data.ImageData(IMAGES).batches(2)
    assert Inputs((8, 8, 3)).read(batches) is batches
    found = []
    for i in range(3):
        batch = batches[i]
        for future in batches._ahead.values():  # The reader's thread.
            future.result()
        found.append(batch)
    assert all(isinstance(image, torch.Tensor) for (image,) in found)
    np.testing.assert_array_equal(np.concatenate(first_of(found)), IMAGES)
    waits = [note for note in gpu if note.startswith("step")]
    assert len(waits) == gpu.count("pin") == gpu.count("copy") == 3
    # The second batch has been copied before the second step, and so on.
    assert gpu.index(waits[1]) > gpu.index("copy", gpu.index("copy") + 1)


def test_batches_of_a_generator_are_copied_one_step_ahead(gpu):
    batches = ((IMAGES[i : i + 2], ["a", "b"]) for i in (0, 2, 4))
    found = first_of(Inputs((8, 8, 3)).read(batches))
    np.testing.assert_array_equal(np.concatenate(found), IMAGES)
    assert_ahead(gpu, 3)
    gpu.clear()
    loader = torch.utils.data.DataLoader(IMAGES.tolist(), batch_size=6)
    loader.collate_fn = lambda rows: torch.tensor(rows, dtype=torch.uint8)
    (found,) = first_of(Inputs((8, 8, 3)).read(loader))
    np.testing.assert_array_equal(found, IMAGES)
    assert_ahead(gpu, 1)


def test_views_are_copied_and_text_is_not(gpu):
    fake = inputs_module.uploads()
    views = {
        "view_1": IMAGES,
        "view_2": torch.tensor(IMAGES),
        "name": np.array(["a"]),
        "none": None,
        "number": 3,
    }
    found = fake.end(fake.begin((views, np.arange(6))))
    assert gpu.count("copy") == gpu.count("pin") == 3
    for name in ("view_1", "view_2"):
        assert found[0][name] is not views[name]
        np.testing.assert_array_equal(found[0][name], IMAGES)
    assert all(found[0][name] is views[name] for name in ("name", "none"))
    assert found[0]["number"] == 3 and found[1].tolist() == list(range(6))


def test_batches_of_a_py_dataset_are_copied(gpu):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return IMAGES[3 * index : 3 * index + 3], np.zeros(3)

    read = Inputs((8, 8, 3)).read(Batches())
    np.testing.assert_array_equal(np.asarray(read[1][0]), IMAGES[3:])
    assert gpu.count("copy") == gpu.count("pin") == 1
    gpu.clear()
    # A process of its own has no GPU.
    read = Inputs((8, 8, 3)).read(Batches(use_multiprocessing=True))
    assert type(read[1][0]) is np.ndarray and not gpu


def test_arrays_are_copied_one_step_ahead(gpu):
    model = simclr(tiny_encoder())
    model.compile("sgd")
    images = np.zeros((6, 28, 28, 1), "uint8")
    images += np.arange(6, dtype="uint8").reshape(-1, 1, 1, 1)
    views = {"view_1": images, "view_2": images[::-1]}
    model.fit(images, np.zeros(6), batch_size=4, verbose=0)
    assert_ahead(gpu, 2)
    gpu.clear()
    model.fit(views, batch_size=2, verbose=0, validation_data=images)
    assert gpu.count("copy") == gpu.count("pin") == 2 * 3 + 3
    gpu.clear()
    model.evaluate(images, np.zeros(6), batch_size=2, verbose=0)
    assert_ahead(gpu, 3)
    gpu.clear()
    found = model.predict(views, batch_size=4, verbose=0)
    assert gpu.count("copy") == 4
    gpu.clear()
    # What Keras weighs or splits by itself stays an array.
    model.fit(images, batch_size=4, verbose=0, validation_split=0.3)
    assert not gpu
    for batches, is_whole in (
        (rows_ahead(images, 4), True),
        (rows_ahead(torch.tensor(images), 4, shuffle=True), False),
    ):
        first, last = (batch[:, 0, 0, 0].tolist() for (batch,) in batches)
        assert len(first) == 4 and sorted(first + last) == list(range(6))
        assert not is_whole or first + last == list(range(6))
    assert set(found) >= {"projection_1", "projection_2"}
