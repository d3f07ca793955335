"""Processes with unequal data fail at once instead of waiting forever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras

from tests.backends import more
from tests.distributed.cluster import cluster

ROOT = Path(__file__).parents[2]
BACKEND = keras.config.backend()

UNEQUAL = """
import json
import sys

import keras
import numpy as np

from kerassl import distributed
from tests.contracts.methods import METHODS
from tests.distributed.worker import tiny_encoder

keras.utils.set_random_seed(1)
with distributed.devices(2):
    rank, _ = distributed.process()
    found = {"all": distributed.from_all_processes([rank, 7])}
    model = METHODS["rotation"](tiny_encoder())
    model.compile("sgd")
    images = np.zeros((8, 28, 28, 1), "uint8")

    def error(data, **options):
        try:
            model.fit(data, verbose=0, **options)
        except ValueError as error:
            return str(error)

    found["count"] = error(images[: 8 - 4 * rank], batch_size=2)
    found["size"] = error(images, batch_size=4 - 2 * rank, steps_per_epoch=2)
    if keras.config.backend() == "torch":
        few = 3 - rank
        found["read"] = error(images[:4] for _ in range(few))
    if rank == 0:
        print(json.dumps(found))
"""


@more("the same on PyTorch", always_on="torch")
def test_unequal_processes_fail():
    start = [sys.executable]
    if BACKEND == "torch":
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += ["--nproc-per-node", "2", "--no-python", sys.executable]
    variables = [{}] if BACKEND == "torch" else cluster(2)
    first, *others = [
        subprocess.Popen(
            [*start, "-c", UNEQUAL],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for more in variables
    ]
    out, err = first.communicate(timeout=240)
    for other in others:
        other.communicate(timeout=60)
    assert out, err[-2000:]
    found = json.loads(out.splitlines()[-1])
    assert found["all"] == [[0, 7], [1, 7]]
    assert "by process: 4 batches of 2; 2 batches of 2." in found["count"]
    assert "by process: 2 batches of 4; 2 batches of 2." in found["size"]
    if BACKEND == "torch":
        assert "in batch 3, by process: [4, 0] images" in found["read"]
