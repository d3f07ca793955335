"""The part of the data that a process reads."""

import numpy as np
import pytest
from PIL import Image

from kerassl import data, distributed
from kerassl.data.photos import Photos
from tests.backends import once


@once
def test_images_stay_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr("kerassl.data.photo_checks._IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("kerassl.distributed.processes.process", lambda: (1, 2))
    for i in range(4):
        path = tmp_path / "ab"[i // 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(path)
    whole = data.load(f"folder:{tmp_path}", image_size=8)
    expected = np.asarray(whole.images)[2:]
    monkeypatch.setattr(Photos, "__getitem__", None)
    own = distributed.process_shard(whole)
    assert own.labels.tolist() == [1, 1] and own.paths == whole.paths[2:]
    for photos in (own.images, distributed.process_shard(whole.images)):
        assert isinstance(photos, Photos)
        np.testing.assert_array_equal(photos.read([0, 1])[0], expected)
    array = np.arange(6)
    assert distributed.process_shard(array).tolist() == [3, 4, 5]
    with pytest.raises(ValueError, match="3 images can't .* multiple of 2"):
        distributed.process_shard(whole.take(3))
