"""`import kerassl` stays light: heavy libraries load on use."""

import json
import os
import subprocess
import sys
import textwrap

import keras

CODE = textwrap.dedent(
    """
    import json, sys, time
    import keras
    before = set(sys.modules)
    start = time.perf_counter()
    import kerassl
    seconds = time.perf_counter() - start
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    print(json.dumps([seconds, sorted(new)]))
    """
)


def test_import_adds_little():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
        check=True,
    )
    _, new = json.loads(done.stdout.splitlines()[-1])
    heavy = {
        "keras_hub",
        "tensorflow",
        "tensorflow_datasets",
        "torch",
        "jax",
        "matplotlib",
        "PIL",
        "sklearn",
    }
    assert not heavy & set(new)
