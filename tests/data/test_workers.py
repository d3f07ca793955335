"""Images that other processes decode."""

import gc
import multiprocessing
import os
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kerassl
from kerassl.augmentation import simclr
from kerassl.data.batches import CROPS
from kerassl.data.cuts import Resized
from kerassl.data.shared import Memories, Memory, size_of
from kerassl.data.workers import Workers, workers
from tests.backends import more, once

pytestmark = [
    once,
    pytest.mark.skipif(os.name == "nt", reason="Threads decode on Windows."),
    pytest.mark.filterwarnings("ignore:.*fork.*"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]
COUNT = 20
KINDS = ["folder", "list", "tar", "parquet"]
PLAN = simclr(24).crop_plan
LAYOUT = {"image": ((4, 24, 24, 3), "uint8")}


@pytest.fixture(scope="module")
def pool():
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def use(monkeypatch, pool):
    """Lets processes decode, or threads."""
    monkeypatch.setattr("kerassl.data.photos._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("kerassl.data.photos.FEWEST_IMAGES", 1)

    def use(processes):
        found = pool if processes else None
        monkeypatch.setattr("kerassl.data.photos.workers", lambda: found)

    return use


def write_photos(folder):
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        shape = (40 + 3 * i, 90 - 2 * i, 3)
        image = Image.fromarray(rng.integers(0, 256, shape).astype("uint8"))
        path = folder / "ab"[i % 2] / f"{i:02}{['.jpg', '.png'][i % 3 == 0]}"
        path.parent.mkdir(exist_ok=True, parents=True)
        image.save(path)


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "photos")
    return tmp_path / "photos"


def source_of(kind, folder):
    """Stores the photos of a folder in another form."""
    files = sorted(folder.rglob("*.*"))
    place = folder.parent
    if kind == "list":
        (place / "x.txt").write_text("\n".join(map(str, files)))
        return place / "x.txt"
    if kind == "tar":
        for number in range(2):
            with tarfile.open(place / f"{number}.tar", "w") as archive:
                for file in files[number::2]:
                    archive.add(file, file.name)
        return place / "*.tar"
    if kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pa.table({"image": [file.read_bytes() for file in files]})
        parquet.write_table(table, place / "x.parquet", row_group_size=7)
        return place / "x.parquet"
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_processes_make_what_threads_make(folder, use, kind, caplog):
    data = kerassl.data.load(str(source_of(kind, folder)), image_size=24)
    order = np.random.default_rng(1).permutation(COUNT)
    uniforms = np.random.default_rng(2).random((COUNT, PLAN.num_uniforms))
    made = {}
    for processes in (True, False):
        use(processes)
        views, used = data.images.read_cuts(order, PLAN, uniforms)
        made[processes] = [*views.values(), data.images[:], used]
    for one, other in zip(made[True], made[False]):
        np.testing.assert_array_equal(one, other)
    assert not caplog.records


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_batches_again(folder, use, kind):
    """What a run that was killed reads when it is resumed."""
    use(True)
    source = str(source_of(kind, folder))
    data = kerassl.data.load(source, image_size=24)

    def read(**kwargs):
        batches = data.batches(4, shuffle=True, seed=3, epoch=1, **kwargs)
        batches.cut(PLAN)
        return [batches[i][0][CROPS]["view_1"] for i in range(len(batches))]

    whole = read()
    data = kerassl.data.load(source, image_size=24)
    for rest, other in zip(read(start_step=2), whole[2:], strict=True):
        np.testing.assert_array_equal(rest, other)
    use(False)
    np.testing.assert_array_equal(read(), whole)


def test_unreadable_images_are_replaced(folder, use, caplog):
    data = kerassl.data.load(folder, image_size=24)
    data.images.paths[4].write_bytes(b"nothing")
    found = []
    for processes in (True, False):
        use(processes)
        images, used = data.images.select(range(COUNT)).read(range(COUNT))
        found.append((images, used))
    assert found[0][1].tolist() == [0, 1, 2, 3, 5, *range(5, COUNT)]
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)
    assert len(caplog.messages) == 2
    assert all("Can't read" in message for message in caplog.messages)


def process_of(pool):
    """Returns the process of a thread of the pool's."""
    return pool._threads.submit(lambda: pool._own.process).result()


def test_processes_that_end_are_replaced(folder, use, monkeypatch, caplog):
    pool = Workers(1)
    use(True)
    monkeypatch.setattr("kerassl.data.photos.workers", lambda: pool)
    data = kerassl.data.load(folder, image_size=24)
    right = data.images[:]
    for deaths in range(1, 4):
        process = process_of(pool)
        process.kill()
        process.wait()
        for _ in range(2):
            np.testing.assert_array_equal(data.images[:], right)
        told = caplog.text.count("A process that decodes images ended")
        assert told == deaths
    assert "threads do its work from now on" in caplog.text
    pool.close()


def test_processes_are_light_and_end_with_their_parent(folder):
    """Also if it is killed."""
    ours, theirs = multiprocessing.Pipe()

    def parent():
        own = Workers(1)
        data = kerassl.data.load(folder, image_size=24).images
        _, left = own.make(data.records, range(4), LAYOUT, Resized((24, 24)))
        theirs.send((process_of(own).pid, left))
        time.sleep(60)

    context = multiprocessing.get_context("fork")
    process = context.Process(target=parent)
    process.start()
    assert ours.poll(60), "It hangs."
    worker, left = ours.recv()
    assert not left
    if Path("/proc").is_dir():
        maps = Path(f"/proc/{worker}/maps").read_text()
        assert "numpy" in maps
        for heavy in ("torch", "tensorflow", "jaxlib", "h5py"):
            assert heavy not in maps
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    end = time.monotonic() + 20
    while is_running(worker):
        assert time.monotonic() < end, "It goes on."
        time.sleep(0.05)


class Unknown(Resized):
    """A maker that can't be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def test_what_a_process_does_not_know_is_left(folder, pool):
    data = kerassl.data.load(folder, image_size=24).images
    for make, wanted in (
        (Unknown((24, 24)), [0, 1, 2, 3]),
        (Resized((24, 24)), []),
    ):
        _, left = pool.make(data.records, range(4), LAYOUT, make)
        assert left == wanted


def is_running(pid):
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        # An orphan may wait for a parent that collects no one.
        return not (state.exists() and state.read_text().split()[2] in "ZX")
    except (ProcessLookupError, FileNotFoundError):
        return False


def count_in_child(connection):
    connection.send(workers() is None)


def test_processes_of_processes_use_threads():
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=count_in_child, args=(theirs,))
    process.start()
    assert ours.poll(60) and ours.recv()
    process.join()


def test_memory_is_freed(folder, use):
    use(True)
    data = kerassl.data.load(folder, image_size=24)
    counts = []
    for _ in range(4):
        for batch in data.batches(5):
            assert batch[0].shape == (5, 24, 24, 3)
        if Path("/proc/self/fd").is_dir():
            counts.append(len(os.listdir("/proc/self/fd")))
    assert len(set(counts[1:])) <= 1


def test_shared_arrays():
    layout = {"a": ((2, 3), "uint8"), "b": ((5,), "float32"), "c": ((0,), "u1")}
    memory = Memory(size_of(layout))
    one = memory.arrays(layout)
    other = Memory(memory.size, os.dup(memory.handle)).arrays(layout)
    del memory
    one["a"][1] = 7
    one["b"][:] = 0.5
    assert other["a"].tolist() == [[0, 0, 0], [7, 7, 7]]
    assert (other["b"] == 0.5).all() and not len(other["c"])


def test_memory_is_used_again_when_nobody_has_it():
    memories = Memories()
    layout = {"a": ((2, 3), "uint8"), "b": ((5,), "float32")}
    first, arrays = memories.take(layout)
    arrays["a"][:] = 7
    view = arrays["a"][1, ::2]
    second, others = memories.take(layout)
    del arrays
    gc.collect()
    third, _ = memories.take(layout)
    assert len({first.handle, second.handle, third.handle}) == 3
    assert view.tolist() == [7, 7]
    del view
    gc.collect()
    again, arrays = memories.take(layout)
    assert again is first and arrays["a"][0, 0] == 7
    # Of another size.
    other, _ = memories.take({"a": ((2000,), "uint8")})
    assert other.size > first.size


def resident(pids):
    """Returns how much memory some processes have, in MiB."""
    pages = [Path(f"/proc/{p}/statm").read_text().split()[1] for p in pids]
    return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / 2**20


@more("test_memory_is_freed")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="No /proc.")
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_an_epoch_of_100_000_files_takes_no_more_memory(tmp_path, use, kind):
    pool = Workers(2)
    use(True)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr("kerassl.data.photos.workers", lambda: pool)
    write_photos(tmp_path / "few")
    few = sorted((tmp_path / "few").rglob("*.*"))
    if kind == "folder":
        for i in range(100_000):
            folder = tmp_path / "many" / str(i % 100)
            folder.mkdir(exist_ok=True, parents=True)
            os.link(few[i % COUNT], folder / f"{i}{few[i % COUNT].suffix}")
        source = tmp_path / "many"
    else:
        source = tmp_path / "many.tar"
        with tarfile.open(source, "w") as archive:
            for i in range(100_000):
                file = few[i % COUNT]
                archive.add(file, f"{i}{file.suffix}")
    data = kerassl.data.load(str(source), image_size=24)
    assert len(data.images) == 100_000
    batches = data.batches(250, shuffle=True)
    batches.cut(PLAN)
    used = []
    for step in range(len(batches)):
        batches[step]
        if step % 100 == 99:
            pids = [os.getpid(), *(p.pid for p, _ in pool._all)]
            used.append(resident(pids))
    monkeypatch.undo()
    pool.close()
    # From the first quarter to the end.
    assert max(used[1:]) - used[0] < 8, used
