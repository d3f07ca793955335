"""Images that other processes decode."""

import gc
import multiprocessing
import os
import signal
import sys
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
from kerassl.data.workers import Workers, _start, workers
from tests.backends import more, once
from tests.data.deadly import Deadly

pytestmark = [
    once,
    pytest.mark.skipif(os.name == "nt", reason="Threads decode on Windows."),
    pytest.mark.filterwarnings("ignore:.*fork.*"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]
COUNT = 20
KINDS = ["folder", "list", "tar", "parquet", "row groups"]
PLAN = simclr(24).crop_plan
LAYOUT = {"image": ((4, 24, 24, 3), "uint8")}


@pytest.fixture(scope="module")
def pool():
    pool = Workers(2)
    yield pool
    pool.close()


@pytest.fixture
def use(monkeypatch, pool, request):
    """Lets processes decode, or threads."""
    if "row groups" in request.node.name:  # Too large for memory.
        monkeypatch.setattr("kerassl.data.parquet.MAX_BYTES", 0)
        monkeypatch.setattr("kerassl.data.row_groups.MIXED_BYTES", 0)
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
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
    if kind in ("parquet", "row groups"):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pa.table({"image": [file.read_bytes() for file in files]})
        parquet.write_table(table, place / "x.parquet", row_group_size=2)
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
    data.paths[4].write_bytes(b"nothing")
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


@pytest.fixture
def one_process(use, monkeypatch):
    pool = Workers(1)
    use(True)
    monkeypatch.setattr("kerassl.data.photos.workers", lambda: pool)
    yield pool
    pool.close()


def test_processes_that_end_are_replaced(folder, one_process, caplog):
    data = kerassl.data.load(folder, image_size=24)
    right = data.images[:]
    for deaths in range(1, 6):
        process = process_of(one_process)
        process.kill()
        process.wait()
        for _ in range(2):
            np.testing.assert_array_equal(data.images[:], right)
        told = caplog.text.count("A process that decodes images ended by SIGK")
        assert told == deaths == len(caplog.messages)


def test_threads_decode_where_processes_do_not_start(
    folder, one_process, monkeypatch, caplog
):
    data = kerassl.data.load(folder, image_size=24)
    for wrong in ("/bin/false", "/nowhere/python", "/bin/false", "/bin/false"):
        monkeypatch.setattr(sys, "executable", wrong)
        assert data.images[:].shape == (COUNT, 24, 24, 3)
    for message, why in zip(
        caplog.messages, ("with status 1", "No such file", "do its work from")
    ):
        assert "doesn't start" in message and why in message
    assert len(caplog.messages) == 3


def test_an_image_that_ends_processes_is_replaced(folder, one_process, caplog):
    """And never decoded in this one."""
    data = kerassl.data.load(folder, image_size=24)
    right = data.images[:]
    names = [Path(data.images.records.name(i)).stem for i in (3, 4)]
    data.images.decoder = Deadly(frozenset(names), os.getpid())
    expected = [0, 1, 2, 5, 5, *range(5, COUNT)]
    for times in range(3):
        images, used = data.images.read(range(COUNT))
        assert used.tolist() == expected
        np.testing.assert_array_equal(images, right[expected])
        if times == 0:
            for number in (3, 4):
                name = data.images.records.name(number)
                line = f"Can't read image {name!r} (the process that decodes it"
                assert f"{line} ended by SIGSEGV, twice)" in caplog.text
            told = len(caplog.messages)
    assert len(caplog.messages) == told


def test_ctrl_c_is_not_for_processes_that_decode():
    """Not even while they start: each would print a traceback."""
    process, connection = _start()
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert connection.poll(60) and connection.recv() == "ready"
    connection.close()
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    "has_child",
    [False, pytest.param(True, marks=more("the same without a child"))],
)
def test_processes_are_light_and_end_with_their_parent(folder, has_child):
    """Also if it is killed, and another child has all that it had open."""
    ours, theirs = multiprocessing.Pipe()

    def parent():
        own = Workers(1)
        data = kerassl.data.load(folder, image_size=24).images
        _, *failed = own.make(data.records, range(4), LAYOUT, Resized((24, 24)))
        child = os.fork() if has_child else None
        if child != 0:
            theirs.send((process_of(own).pid, child, any(failed)))
        time.sleep(60)

    context = multiprocessing.get_context("fork")
    process = context.Process(target=parent)
    process.start()
    assert ours.poll(60), "It hangs."
    worker, child, failed = ours.recv()
    assert not failed
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
    if child is not None:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_killed_process_goes_on_with_the_same_batches(folder, use, kind):
    """As a run does; `tests/runs/test_killed.py` kills some."""
    use(False)
    source = str(source_of(kind, folder))

    def send(start, connection):
        data = kerassl.data.load(source, image_size=24)
        batches = data.batches(4, shuffle=True, seed=3, start_step=start)
        batches.cut(PLAN)
        for step in range(len(batches)):
            connection.send(batches[step][0][CROPS]["view_2"])
        time.sleep(60)

    def read(start, count):
        ours, theirs = multiprocessing.Pipe()
        with pytest.MonkeyPatch.context() as patch:
            own = Workers(1)  # Its threads begin in the other process.
            patch.setattr("kerassl.data.photos.workers", lambda: own)
            context = multiprocessing.get_context("fork")
            process = context.Process(target=send, args=(start, theirs))
            process.start()
        found = []
        for _ in range(count):
            assert ours.poll(60), "It hangs."
            found.append(ours.recv())
        process.kill()
        process.join()
        return found

    killed, rest = read(0, 3), read(2, 3)
    batches = kerassl.data.load(source, image_size=24).batches(
        4, shuffle=True, seed=3
    )
    batches.cut(PLAN)
    right = [batches[step][0][CROPS]["view_2"] for step in range(5)]
    np.testing.assert_array_equal(killed, right[:3])
    np.testing.assert_array_equal(rest, right[2:])


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
        _, left, ended = pool.make(data.records, range(4), LAYOUT, make)
        assert left == wanted and not ended


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


def test_unused_memory_is_bounded(monkeypatch):
    layout = {"a": ((1000,), "uint8")}
    for most, kept in ((10_000, 4), (3000, 2), (500, 1)):
        monkeypatch.setattr("kerassl.data.shared._MOST_BYTES", most)
        memories = Memories()
        taken = [memories.take(layout) for _ in range(6)]
        del taken
        assert len(memories._free) == kept


@pytest.mark.parametrize(["most", "ahead"], [(2**30, 2), (50_000, 1), (9, 1)])
def test_batches_ahead_are_bounded(folder, use, monkeypatch, most, ahead):
    """One takes 4 x 2 x 24 x 24 x 3 = 13,824 bytes, or a third of a larger."""
    monkeypatch.setattr("kerassl.data.batches._AHEAD_BYTES", most)
    use(False)
    data = kerassl.data.load(folder, image_size=24)
    for size in (4, 12):
        batches = data.batches(size)
        batches.cut(PLAN)
        wanted = 2 if most == 50_000 and size == 4 else ahead
        seen = [batches[0]]
        assert len(batches._ahead) == min(wanted, len(batches) - 1)
        seen += [batches[step] for step in range(1, len(batches))]
        assert len(seen) == len(batches)


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
