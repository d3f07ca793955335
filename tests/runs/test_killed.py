"""Runs that are killed with SIGKILL go on with the same batches."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerassl import runs
from kerassl.data import photos
from kerassl.data.photos import Photos
from tests.backends import more, once
from tests.data.made import bands, dicom, tiff
from tests.hub_server import HubServer
from tests.hub_server.client import variables
from tests.runs.noted import digest, read_digests

pytestmark = [
    once,
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="No /proc."),
]
ROOT = Path(__file__).resolve().parents[2]
COUNT, EPOCHS = 40, 3
ARGUMENTS = (
    "pretrain simclr --recipe cpu --encoder resnet_nano --image-size 24 "
    f"--batch-size 8 --epochs {EPOCHS} --data"
).split()
# Each takes half a minute.
SOURCES = [
    pytest.param(kind, marks=more("test_workers.py"))
    for kind in (
        *("folder", "list", "table", "tar", "parquet", "hf", "tfds"),
        *("npz", "npy", "mapped", "h5", "zarr", "tiff", "dicom"),
    )
]


def pixels():
    """Yields images of various sizes."""
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        yield rng.integers(0, 256, (30 + i, 60 - i, 3)).astype("uint8")


def encoded(x):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "jpeg")
    return file.getvalue()


def parquet_file(place):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"image": list(map(encoded, pixels()))})
    parquet.write_table(table, place, row_group_size=7)


def source_of(kind, place):
    """Makes a source of images; returns what `--data` is."""
    name = place / "x"
    squares = np.stack([x[:24, :20] for x in pixels()])
    if kind == "tiff":
        for i, x in enumerate(bands(COUNT)):
            tiff(name / f"{i}.tif", x)
    elif kind == "dicom":
        for i, x in enumerate(bands(COUNT)):
            dicom(name / f"{i}.dcm", x[..., 0])
    elif kind == "npz":
        np.savez(name.with_suffix(".npz"), images=squares)
        return name.with_suffix(".npz")
    elif kind in ("npy", "mapped"):
        np.save(name.with_suffix(".npy"), squares)
        return name.with_suffix(".npy")
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(name.with_suffix(".h5"), "w") as file:
            file["images"] = squares
        return name.with_suffix(".h5")
    elif kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.save_array(name.with_suffix(".zarr"), squares)
        return name.with_suffix(".zarr")
    elif kind == "tfds":
        tfds = pytest.importorskip("tensorflow_datasets")
        tfds.dataset_builders.store_as_tfds_dataset(
            name="various",
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(None, None, 3))}
            ),
            split_datasets={
                "train": [(i, {"image": x}) for i, x in enumerate(pixels())]
            },
            data_dir=place,
            disable_shuffling=True,
        )
        return "tfds:various"
    elif kind == "parquet":
        parquet_file(name.with_suffix(".parquet"))
        return name.with_suffix(".parquet")
    else:
        name.mkdir()
        for i, x in enumerate(pixels()):
            (name / f"{i:02}.jpg").write_bytes(encoded(x))
    files = sorted(map(str, name.iterdir()))
    if kind == "list":
        name = name.with_suffix(".txt")
        name.write_text("\n".join(files))
    elif kind == "table":
        name = name.with_suffix(".csv")
        rows = [f"{file},{i % 2}" for i, file in enumerate(files)]
        name.write_text("\n".join(["path,label", *rows]))
    elif kind == "tar":
        for number in range(2):
            with tarfile.open(place / f"{number}.tar", "w") as archive:
                for file in files[number::2]:
                    archive.add(file, Path(file).name)
        return place / "*.tar"
    return name


@pytest.fixture
def environment(tmp_path):
    return {
        **os.environ,
        "KERAS_BACKEND": keras.config.backend(),
        "PYTHONPATH": str(ROOT),
        "KERASSL_TEST_MARK": str(tmp_path),
    }


def marked(environment):
    """Returns the processes of this test."""
    mark = f"KERASSL_TEST_MARK={environment['KERASSL_TEST_MARK']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # It ended, or belongs to someone else.
    return found


def shared():
    return set(os.listdir("/dev/shm"))


def kill(running, environment, there):
    """Kills a run; checks that its other processes end, and leave nothing."""
    running.kill()
    running.communicate()
    end = time.monotonic() + 30
    while left := marked(environment):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert shared() <= there


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_batches_after_sigkill(
    kind, tmp_path, environment, monkeypatch
):
    folder, log = tmp_path / "run", tmp_path / "log"
    if kind == "hf":
        huggingface_hub = pytest.importorskip("huggingface_hub")
        from tests.hub_server.client import connect
    with HubServer() as hub:
        if kind == "hf":
            connect(monkeypatch, hub, tmp_path / "cache")
            environment |= variables(hub, tmp_path / "cache")
            api = huggingface_hub.HfApi()
            api.create_repo("alice/photos", repo_type="dataset")
            parquet_file(tmp_path / "x.parquet")
            api.upload_file(
                path_or_fileobj=tmp_path / "x.parquet",
                path_in_repo="data/train-0.parquet",
                repo_id="alice/photos",
                repo_type="dataset",
            )
            source = "hf:alice/photos"
        else:
            source = str(source_of(kind, tmp_path))
        if kind == "mapped":
            environment["KERASSL_TEST_MAPPED"] = "1"
        there = shared()
        command = [sys.executable, "-m", "tests.runs.noted", str(log)]
        first = [*command, *ARGUMENTS, source, "--output", str(folder)]
        if kind == "tfds":
            first += ["--data-dir", str(tmp_path)]
        running = subprocess.Popen(
            first,
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        end = time.monotonic() + 300
        while (1, 3) not in dict(read_digests(log)):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        is_photos = kind not in ("npz", "npy", "mapped", "h5", "zarr")
        assert len(marked(environment)) > 1 or not is_photos
        kill(running, environment, there)
        assert (folder / "checkpoint.keras").exists()
        before = read_digests(log)
        assert (EPOCHS - 1, 0) not in dict(before)
        again = subprocess.run(
            [*command, "pretrain", "--resume", "--output", str(folder)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert again.returncode == 0, again.stderr
        assert not marked(environment) and shared() <= there
        after = read_digests(log)[len(before) :]
        steps = COUNT // 8
        assert [place for place, _ in sorted(after)] == [
            (epoch, step) for epoch in (1, 2) for step in range(steps)
        ]
        # What a run reads that isn't interrupted.
        monkeypatch.setattr(photos, "_IN_MEMORY_BYTES", 0)
        shutil.copytree(folder, tmp_path / "copy")
        run = runs.resume(tmp_path / "copy")
        assert isinstance(run.data.images, Photos) == is_photos
        for epoch in range(EPOCHS):
            batches = run.data.batches(
                8,
                shuffle=True,
                seed=run.recipe.seed,
                drop_remainder=True,
                epoch=epoch,
            )
            batches.cut(run.model.augmenter.crop_plan)
            for step in range(steps):
                right = digest(batches[step])
                found = {
                    d for place, d in before + after if place == (epoch, step)
                }
                assert found == {right}, (epoch, step)
