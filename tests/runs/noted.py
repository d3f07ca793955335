"""`kerassl`, which notes a digest of each batch that it reads.

    python -m tests.runs.noted LOG ARGUMENT ...

Processes decode also few photos, and slowly.
"""

import hashlib
import os
import sys
import time

import keras
import numpy as np

from kerassl.cli.main import main
from kerassl.data import ImageBatches, photos, stored


def digest(batch):
    """Returns a digest of the arrays of a batch."""
    found = hashlib.sha256()
    for array in keras.tree.flatten(batch):
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def read_digests(log):
    """Returns what was noted: pairs of (epoch, step) and a digest."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    words = map(str.split, lines)
    return [((int(epoch), int(step)), found) for epoch, step, found in words]


def note(log):
    """Begins to note."""
    read = ImageBatches._read

    def noted(self, epoch, step):
        batch = read(self, epoch, step)
        if self.shuffle:
            with open(log, "a") as file:
                file.write(f"{epoch} {step} {digest(batch)}\n")
            time.sleep(0.1)
        return batch

    ImageBatches._read = noted
    photos.FEWEST_IMAGES = 1
    photos._IN_MEMORY_BYTES = 0
    if "KERASSL_TEST_MAPPED" in os.environ:
        stored.MEMORY_MAP_BYTES = 0


if __name__ == "__main__":
    note(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
