"""Images in processes other than the one that opened them."""

import copy
import multiprocessing
import pickle

import keras
import numpy as np
import pytest
from PIL import Image

import kerassl.data
from kerassl.data.photos import Photos
from kerassl.data.threads import Threads

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]
COUNT = 12


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder whose images are of the value of their number; it was used."""
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    for i in range(COUNT):
        path = tmp_path / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, i, i)).save(path)
    data = kerassl.data.load(tmp_path, image_size=4)
    assert isinstance(data.images, Photos)
    assert values(data.images[:]) == [*range(0, COUNT, 2), *range(1, COUNT, 2)]
    return data


def values(images):
    return np.asarray(images)[:, 0, 0, 0].tolist()


def send_values(images, index, connection):
    connection.send(values(images[index] if index is not None else images[0]))


def in_process(method, images, index):
    """Returns the values that another process reads."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=send_values, args=(images, index, theirs))
    process.start()
    try:
        assert ours.poll(60), "It hangs."
        return ours.recv()
    finally:
        process.kill()
        process.join()


def test_forked_process_reads(data):
    assert in_process("fork", data.images, slice(4)) == [0, 2, 4, 6]
    # And this one goes on.
    assert values(data.images[:4]) == [0, 2, 4, 6]


def test_spawned_process_reads(data, monkeypatch):
    if keras.backend.backend() != "torch":
        pytest.skip("Its imports take seconds, and it asks for no backend.")
    monkeypatch.setenv("KERAS_BACKEND", "numpy")  # It is light.
    assert in_process("spawn", data.images, slice(4)) == [0, 2, 4, 6]


def first_values(batches, connection):
    connection.send([values(batches[step][0]) for step in (1, 0, 2)])


def test_forked_process_takes_batches_that_its_parent_reads(data):
    batches = data.batches(4)
    assert values(batches[0][0]) == [0, 2, 4, 6]  # Number 1 is read ahead.
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=first_values, args=(batches, theirs))
    process.start()
    try:
        assert ours.poll(60), "It hangs."
        assert ours.recv() == [[8, 10, 1, 3], [0, 2, 4, 6], [5, 7, 9, 11]]
    finally:
        process.kill()
        process.join()
    assert values(batches[1][0]) == [8, 10, 1, 3]


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
)
def test_copies_read(data, copied):
    again = copied(data)
    assert again.paths == data.paths and again.class_names == ("a", "b")
    np.testing.assert_array_equal(again.images[:], data.images[:])
    batches = data.batches(5, shuffle=True, seed=2)
    right = batches[0]
    for got, wanted in zip(copied(batches)[0], right, strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(batches[1][0], copied(batches)[1][0])


@pytest.mark.parametrize("source", ["npz", "npy", "fashion_mnist_small"])
def test_copies_of_arrays(tmp_path, monkeypatch, source):
    monkeypatch.setattr("kerassl.data.stored.MEMORY_MAP_BYTES", 10)
    spec = source if "_" in source else str(tmp_path / f"x.{source}")
    pixels = np.arange(COUNT * 12, dtype="uint8").reshape(COUNT, 2, 2, 3)
    np.savez(tmp_path / "x.npz", images=pixels)
    np.save(tmp_path / "x.npy", pixels)
    data = kerassl.data.load(spec)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again.images, data.images)
    seen = in_process("fork", data.images, slice(4))
    assert seen == values(data.images[:4])


def test_data_loader_with_workers(data):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        data.images,
        batch_size=4,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=60,
    )
    got = [values(batch) for batch in loader]
    assert got == [[0, 2, 4, 6], [8, 10, 1, 3], [5, 7, 9, 11]]


def test_threads_are_made_once_and_late():
    threads = Threads(2)
    assert threads._pool is None
    assert list(threads.map(abs, [-1, 2])) == [1, 2]
    pool = threads.pool
    assert threads.submit(abs, -3).result() == 3 and threads.pool is pool
    assert copy.copy(threads).count == 2
    assert copy.copy(threads).pool is not pool
