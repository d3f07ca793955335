"""Tar files at URLs: in fsspec's memory, and on an HTTP server."""

import io
import re
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import numpy as np
import pytest

import kerassl.data
from kerassl.cli.main import main
from kerassl.data import remote
from kerassl.data.load import peek_size
from kerassl.data.tars import index_tars
from tests.backends import once
from tests.data.test_sources import encoded, no_rows, numbers, parquet

pytestmark = once


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES", (0, 0))


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


@pytest.fixture
def server():
    """Serves `server.files`, with ranges; fails as `server.faults` says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.log, server.faults = {}, [], []
    server.ranges = True
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(
        target=server.serve_forever, args=(0.02,), daemon=True
    ).start()
    yield server
    server.shutdown()
    server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        body = server.files.get(self.path)
        part = self.headers.get("Range") if server.ranges else None
        server.log.append((self.command, self.path, part))
        status, headers = 200, {"Accept-Ranges": "bytes"}
        if body is None:
            status, body = 404, b""
        elif part and server.faults and (fault := server.faults.pop()):
            status, body = fault, b"busy"
        else:
            headers["ETag"] = f'"{hash(body)}"'
            if part:
                first, last = part.removeprefix("bytes=").split("-")
                stop = min(int(last) + 1, len(body))
                place = f"bytes {first}-{stop - 1}/{len(body)}"
                status, headers["Content-Range"] = 206, place
                body = body[int(first) : stop]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET


def tar(first, count=3, size=(30, 20)):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(first, first + count):
            for name, content in (
                (f"{number:02}.cls", b"%d" % (number % 2)),
                (f"{number:02}.png", encoded(number, size=size)),
                (f"{number:02}.json", b"{}"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("99.png")
        link.type, link.linkname = tarfile.SYMTYPE, "00.png"
        archive.addfile(link)
    return file.getvalue()


def load(source, **kwargs):
    return kerassl.data.load(source, image_size=8, **kwargs)


@pytest.mark.parametrize(
    "pattern", ["train-*", "train-0[89]", "train-{08..09}"]
)
def test_patterns(memory, pattern):
    for i in range(2):
        memory.pipe_file(f"/bucket/train-0{8 + i}.tar", tar(3 * i))
    memory.pipe_file("/bucket/test.tar", tar(9))
    data = load(f"memory://bucket/{pattern}.tar")
    assert numbers(data.images) == [0, 1, 2, 3, 4, 5]
    assert data.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert "6 .json, 2 links" in data.notes[0]
    assert peek_size(f"memory://bucket/{pattern}.tar") == (20, True)


def test_a_path_with_brackets(tmp_path):
    folder = tmp_path / "run [1]"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar(0))
    assert len(load(folder / "a.tar").images) == 3


def test_numbers_at_a_path(tmp_path):
    for i in range(3):
        (tmp_path / f"x-{i}.tar").write_bytes(tar(3 * i))
    data = load(tmp_path / "x-{0..1}.tar")
    assert numbers(data.images) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(FileNotFoundError, match="x-3.tar"):
        load(tmp_path / "x-{2..3}.tar")


def test_an_index_is_remembered(server, tmp_path):
    pytest.importorskip("aiohttp")
    for i in range(2):
        server.files[f"/{i}.tar"] = tar(3 * i)
    source, kept = f"{server.url}/{{0..1}}.tar", tmp_path / "images.npz"

    def read():
        server.log.clear()
        data = load(source, remembered=kept)
        data.remember(kept)
        starts = {(p, r.split("-")[0]) for _, p, r in server.log if r}
        # Headers are read from the start; images later.
        return numbers(data.images), sum(r == "bytes=0" for _, r in starts)

    first = [0, 1, 2, 3, 4, 5]
    assert read() == (first, 2)
    assert read() == (first, 0)
    server.files["/1.tar"] = tar(7)
    assert read() == ([0, 1, 2, 7, 8, 9], 1)
    kept.write_bytes(b"broken")
    assert read() == ([0, 1, 2, 7, 8, 9], 2)
    # Local ones too.
    path = tmp_path / "x.tar"
    path.write_bytes(tar(0))
    load(path).remember(kept)
    found = load(path, remembered=kept)
    assert numbers(found.images) == [0, 1, 2] and "3 .json" in found.notes[0]


def test_the_end_of_a_tar_costs_no_request(server):
    pytest.importorskip("aiohttp")
    whole = tar(0, 2)
    server.files["/x.tar"] = whole
    found = index_tars([f"{server.url}/x.tar"])
    assert sum(len(found.ranges) for _, found in found.files.values()) == 2
    assert sum(part is not None for *_, part in server.log) == 1
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        second = archive.getmember("01.png").offset
    broken = whole[:second] + b"\xff" * 512 + whole[second + 512 :]
    server.files["/y.tar"] = broken
    with pytest.raises(ValueError, match=f"y.tar' .*at byte {second:,}$"):
        index_tars([f"{server.url}/y.tar"])


def test_parquet_without_rows(memory, tmp_path):
    no_rows(tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    memory.pipe_file("/x.parquet", content)
    with pytest.raises(ValueError, match="x.parquet' holds no image"):
        load("memory://x.parquet")


def test_many_are_fetched_by_processes(server, monkeypatch):
    pytest.importorskip("aiohttp")
    from kerassl.data.workers import Workers

    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("kerassl.data.photos.FEWEST_IMAGES", 1)
    server.files["/x.tar"] = tar(0, 24)
    source = f"{server.url}/x.tar"
    data = load(source)
    pool = Workers(1)
    try:
        monkeypatch.setattr("kerassl.data.photos.workers", lambda: pool)
        rows = np.array([20, 3, 11, 5])
        server.log.clear()
        server.faults += [503]  # Tried again.
        assert numbers(data.images[rows]) == rows.tolist()
        asked = [r for _, _, r in server.log if r]
        assert len(asked) == 5 and len(set(asked)) == 4
    finally:
        pool.close()


@pytest.mark.parametrize(
    "source, words",
    [
        ("s3://bucket/x.tar", "s3://bucket/x.tar.*s3fs"),
        ("gs://bucket/x-*.tar", "gs://bucket/x-.*gcsfs"),
        ("what://bucket/x.tar", "what://bucket/x.tar.*not known"),
        ("s3://bucket/photos", "From URLs, .tar and .parquet"),
        ("memory://bucket/x.tar", "no file 'memory://bucket/x.tar'"),
        ("memory://bucket/x-*.tar", "no file 'memory://bucket/x-"),
        ("http://127.0.0.1:1/x.tar", "no file.*connect"),
        ("s3://bucket/x.parquet", "s3://bucket/x.parquet.*s3fs"),
        ("memory://bucket/x.parquet", "no file 'memory://bucket/x.parquet'"),
        ("http://127.0.0.1:1/x.parquet", "no file.*x.parquet.*connect"),
    ],
)
def test_what_cannot_be_read(memory, source, words, capsys, monkeypatch):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    if source.startswith("http"):
        pytest.importorskip("aiohttp")
    if source.endswith("parquet"):
        pytest.importorskip("pyarrow")
    assert main(["data", "check", source]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(words, error), error


def test_servers_with_faults(server, memory):
    pytest.importorskip("aiohttp")
    server.files["/x.tar"] = tar(0)
    server.ranges = False
    with pytest.raises(ValueError, match="x.tar' can't be read|ranges"):
        load(f"{server.url}/x.tar")
    server.ranges = True
    server.faults += [503] * 9
    with pytest.raises(ValueError, match="x.tar' can't be read.*503"):
        load(f"{server.url}/x.tar")
    memory.pipe_file("/x.tar", tar(0)[:1600])
    with pytest.raises(ValueError, match="x.tar' is not a readable tar"):
        load("memory://x.tar")


@pytest.mark.parametrize("status", [403, 503])
def test_servers_with_faults_at_parquet_files(server, tmp_path, status):
    pytest.importorskip("aiohttp")
    content = parquet(tmp_path / "x.parquet", [0, 1, 0, 1]).read_bytes()
    server.files["/x.parquet"] = content
    url = f"{server.url}/x.parquet"
    # First of the metadata, then of the labels.
    for good in (0, 1):
        server.log.clear()
        server.faults[:] = [status] * 9 + [0] * good
        with pytest.raises(
            ValueError, match=f"^'{url}' can't be read.*{status}"
        ):
            load(url)
    server.faults.clear()
    assert numbers(load(url).images) == [0, 1, 2, 3]
