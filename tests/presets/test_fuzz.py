"""Broken presets are refused, or have the features that they should have.

A few are tried by default; `KERASSL_FUZZ=1` tries 2,000 JSON files and 5,000
HDF5 files, as one does after a change of the readers, or of Keras.
"""

import os
import random
import shutil
import time

import numpy as np
import pytest

import kerassl
from kerassl.presets import PresetError
from kerassl.presets.format.architecture import Weight
from kerassl.presets.format.hdf5 import read_arrays
from kerassl.presets.format.weights import read_weights
from tests.memory import memory_limit
from tests.presets import make
from tests.presets.mutate import mutated_hdf5, mutated_json

ALL = bool(os.environ.get("KERASSL_FUZZ"))
JSON_FILES, HDF5_FILES = (2000, 5000) if ALL else (60, 300)
# Beside the size of the file.
MOST_MEMORY, MOST_SECONDS = 300 * 1024**2, 30
KINDS = {
    "graph": make.graph_encoder,
    "vit": make.vit_encoder,
    "resnet": make.resnet_encoder,
}
FILES = ("kerassl.json", "config.json", "config.json", "metadata.json")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A preset of each kind, images, and their features."""
    found = {}
    for kind, build in KINDS.items():
        encoder = make.randomize(build())
        folder = tmp_path_factory.mktemp("fuzz") / kind
        kerassl.save_preset(encoder, folder)
        images = make.images_for(encoder.input_shape[1:])
        found[kind] = (folder, images, encoder.predict(images, verbose=0))
    return found


def is_refused(function, *arguments):
    """Whether a reader refuses it as promised, and the result otherwise."""
    refused, result = False, None
    started = time.process_time()
    with memory_limit(MOST_MEMORY):
        try:
            result = function(*arguments)
        except PresetError as error:
            assert str(error).isprintable() and len(str(error)) < 2500
            refused = True
    # Only where many are tried: the usual tests don't depend on a clock.
    assert not ALL or time.process_time() - started < MOST_SECONDS
    return refused, result


def test_json(originals, tmp_path):
    counts = {"refused": 0, "same": 0, "others": 0}
    for seed in range(JSON_FILES):
        rng = random.Random(seed)
        kind = rng.choice(["graph", "graph", "vit", "resnet"])
        source, images, features = originals[kind]
        names = FILES + ("image_converter.json",) * (kind != "graph")
        name = rng.choice(names)
        folder = shutil.copytree(source, tmp_path / str(seed))
        data = mutated_json((source / name).read_text(), rng)
        (folder / name).write_bytes(data)
        is_sealed = name != "kerassl.json" and rng.random() < 0.9
        if is_sealed:
            make.reseal(folder)
        try:
            counts[outcome(folder, images, features)] += 1
            # Without new hashes no other features pass.
            if not is_sealed or name != "config.json":
                assert counts["others"] == counts.get("others before", 0)
            counts["others before"] = counts["others"]
        except Exception as error:
            pytest.fail(f"{name} of {kind}, seed {seed}: {error!r}")
        shutil.rmtree(folder)
    print(counts)
    assert counts["refused"] > JSON_FILES / 3
    assert counts["same"] > 0


def outcome(folder, images, features):
    """Both readers refuse it, or the encoder that is loaded computes."""
    not_verified, _ = is_refused(kerassl.verify_preset, folder)
    not_loaded, encoder = is_refused(kerassl.load_encoder, folder)
    assert not_verified == not_loaded
    if not_loaded:
        return "refused"
    if encoder.input_shape[1:] != images.shape[1:]:
        images = make.images_for([s or 8 for s in encoder.input_shape[1:]])
    found = encoder.predict(images, verbose=0)
    assert found.shape == (len(images), encoder.output_shape[-1])
    if found.shape == features.shape and np.allclose(
        found, features, rtol=1e-5, atol=1e-5
    ):
        return "same"
    return "others"


def test_hdf5(originals, tmp_path):
    counts = {"refused": 0, "same": 0, "permuted": 0}
    parts = {}
    for kind, (source, _, _) in originals.items():
        data = (source / "model.weights.h5").read_bytes()
        start = np.frombuffer(data, np.uint8).ctypes.data
        arrays = read_arrays(data, 1000)
        weights = [
            Weight(place, place, array.shape) for place, array in arrays.items()
        ]
        offsets = [array.ctypes.data - start for array in arrays.values()]
        parts[kind] = data, weights, offsets, list(arrays.values())
    for seed in range(HDF5_FILES):
        rng = random.Random(seed)
        kind = rng.choice(list(originals))
        data, weights, offsets, arrays = parts[kind]
        ends = [o + a.nbytes for o, a in zip(offsets, arrays)]
        data = mutated_hdf5(data, sorted(zip(offsets, ends)), rng)
        try:
            not_read, found = is_refused(read_weights, data, weights)
            if not_read:
                counts["refused"] += 1
                if seed % 20 == 0:
                    check_folder(originals[kind], tmp_path / "x", data, True)
                continue
            expected = [
                np.frombuffer(data, "<f4", a.size, o).reshape(a.shape)
                for o, a in zip(offsets, arrays)
            ]
            if all(map(np.array_equal, found, expected)):
                counts["same"] += 1
                if counts["same"] % 40 == 1:
                    result = check_folder(
                        originals[kind], tmp_path / "x", data, False
                    )
                    # Unless a weight was changed.
                    if all(map(np.array_equal, found, arrays)):
                        assert result == "same"
            else:
                # Two links were exchanged: a file like any other.
                assert sorted(map(bytes, found)) == sorted(map(bytes, expected))
                counts["permuted"] += 1
        except Exception as error:
            pytest.fail(f"{kind}, seed {seed}: {error!r}")
    print(counts)
    assert counts["refused"] > HDF5_FILES / 3
    assert counts["same"] > 0
    assert counts["permuted"] <= HDF5_FILES / 1000


def check_folder(original, folder, data, is_refused):
    """The whole preset is refused, or loads."""
    source, images, features = original
    shutil.copytree(source, folder)
    (folder / "model.weights.h5").write_bytes(data)
    make.reseal(folder)
    result = outcome(folder, images, features)
    shutil.rmtree(folder)
    assert (result == "refused") == is_refused
    return result
