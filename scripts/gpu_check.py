"""Measures training steps on a GPU, and trains on it, in eight minutes.

    python scripts/gpu_check.py

needs the repository and a Python with kerassl's backends. It prints images per
second of SimCLR, BYOL, MoCo v2, SwAV and MAE (ResNet-50 or ViT-S, 224 px,
bfloat16) on PyTorch, as it is and compiled, on JAX and on TensorFlow; with
PyTorch also kernels and waits of the host in a step; and the memory. Then it
trains SimCLR with `resnet_18_small` on CIFAR-10 for the time that is left, on
what was fastest, and scores it. Backends that aren't installed and
measurements that don't fit into their share of the time are listed as not run.
Everything is saved in docs/results/gpu_check.json after each part.

`--small` tries all of this with tiny encoders, on any machine; it saves nothing
unless `--output` says where.
"""

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results import RESULTS, append_line, read_lines

METHODS = ("simclr", "byol", "moco_v2", "swav", "mae")
# What runs in a process of its own: its backend, whether it compiles with
# `jit_compile=True` what Keras would not, and its share of the time.
PARTS = {
    "torch": ("torch", False, 0.22),
    "torch_compiled": ("torch", True, 0.18),
    "jax": ("jax", False, 0.16),
    "tensorflow": ("tensorflow", False, 0.12),
}
TRAINING = "training"
# Names of the calls that start a kernel on NVIDIA's GPUs, or wait for one.
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
WAITS = (
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "cudaMemcpy",
    "cudaStreamSynchronize",
)
STEPS = 10


def count_calls(calls: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Counts kernels and waits among calls to a GPU.

    Args:
        calls: pairs of a name of CUDA's and how often it was called.
    """
    found = {"kernels": 0, "waits": 0}
    for name, count in calls:
        if name.startswith(LAUNCHES):
            found["kernels"] += count
        # Copies that aren't `cudaMemcpyAsync` wait, too.
        elif name in WAITS:
            found["waits"] += count
    return found


def calls_of_a_step(model: Any, images: Any) -> dict[str, int]:
    """Returns the kernels and waits of a step; nothing without PyTorch."""
    import keras

    if keras.config.backend() != "torch":
        return {}
    import torch

    if not torch.cuda.is_available():
        return {}
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=kinds) as profiled:
        model.train_on_batch(images)
    return count_calls((e.key, e.count) for e in profiled.key_averages())


def forget() -> None:
    """Frees memory, and counts its peak anew where the backend can."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure(method: str, batch: int, small: bool, compiled: bool) -> dict:
    """Returns what steps of a method cost."""
    import numpy as np
    from benchmark import RandomBatches, gpu

    from kerassl import recipes

    forget()
    encoder = "vit" if method == "mae" else "resnet"
    size = 32 if small else 224
    recipe = recipes.get(method, "cpu" if small else "imagenet").replace(
        encoder=f"{encoder}_nano"
        if small
        else {"vit": "vit_small", "resnet": "resnet_50"}[encoder],
        batch_size=batch,
        precision="mixed_bfloat16",
        image_size=None,
    )
    model = recipes.build_model(recipe, (size, size, 3), 2 * STEPS)
    if compiled:
        model.compile(model.optimizer, jit_compile=True)
    images = np.random.default_rng(0).integers(
        0, 256, (batch, size, size, 3), dtype="uint8"
    )
    start = time.perf_counter()
    model.fit(RandomBatches(images, 3), shuffle=False, verbose=0)
    first = time.perf_counter() - start
    start = time.perf_counter()
    model.fit(RandomBatches(images, STEPS), shuffle=False, verbose=0)
    seconds = (time.perf_counter() - start) / STEPS
    return {
        "images_per_second": round(batch / seconds, 1),
        "first_steps_seconds": round(first, 1),
        **calls_of_a_step(model, images),
        **gpu(),
    }


def measure_all(part: str, lines: Path, small: bool) -> None:
    """Measures all methods on one backend, the large batches first."""
    for batch in (16, 8) if small else (256, 64):
        for method in METHODS:
            try:
                found = measure(method, batch, small, PARTS[part][1])
            except Exception as error:  # Such as too little memory.
                found = {"error": f"{type(error).__name__}: {error}"[:300]}
            line = {"part": part, "method": method, "batch": batch, **found}
            append_line(lines, line)
            print(json.dumps(line), flush=True)


def train(lines: Path, small: bool, compiled: bool, seconds: float) -> None:
    """Trains SimCLR for about so many seconds, and scores it by kNN."""
    import kerassl

    name = "fashion_mnist_small" if small else "cifar10"
    if not small:
        try:
            kerassl.data.load(name, "test")
        except Exception as error:
            print(f"Without CIFAR-10 ({error})", flush=True)
            name = "fashion_mnist_small"
    images, labels = kerassl.data.load(name, "train")
    tests, test_labels = kerassl.data.load(name, "test")

    def build(epochs: int) -> Any:
        steps = epochs * -(-len(images) // batch)
        model = kerassl.SimCLR.from_recipe(
            recipe,
            image_shape=images.shape[1:],
            steps=steps,
            epochs=epochs,
            precision="auto",
        )
        if compiled:
            model.compile(model.optimizer, jit_compile=True)
        return model

    def score(model: Any) -> float:
        return kerassl.evaluation.knn(
            model.embed(images), labels, model.embed(tests), test_labels
        )["accuracy"]

    start = time.perf_counter()
    recipe = "cpu" if small else "cifar"
    batch = kerassl.recipes.get("simclr", recipe).batch_size
    model = build(1)
    untrained = score(model)
    scoring = time.perf_counter() - start
    some = images[: 20 * batch]
    for _ in range(2):  # The first one compiles.
        start_epoch = time.perf_counter()
        model.fit(some, batch_size=batch, verbose=0)
        part = time.perf_counter() - start_epoch
    epoch = part * len(images) / len(some)
    left = seconds - (time.perf_counter() - start) - scoring - part
    epochs = 1 if small else max(1, int(0.85 * left / epoch))
    model = build(epochs)
    start = time.perf_counter()
    model.fit(images, batch_size=batch, epochs=epochs, verbose=0)
    spent = time.perf_counter() - start
    line = {
        "part": TRAINING,
        "data": name,
        "method": "simclr",
        "encoder": model.recipe.encoder,
        "precision": model.recipe.precision,
        "epochs": epochs,
        "batch": batch,
        "images_per_second": round(epochs * len(images) / spent, 1),
        "untrained": round(float(untrained), 4),
        "knn": round(float(score(model)), 4),
    }
    append_line(lines, line)
    print(json.dumps(line), flush=True)


def run_part(
    part: str, backend: str, lines: Path, small: bool, seconds: float
) -> None:
    """Runs a part in a process of its own, for at most so many seconds."""
    command = [sys.executable, __file__, "--part", part, "--output", str(lines)]
    command += ["--seconds", str(seconds), *(["--small"] if small else [])]
    variables = {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Otherwise JAX takes most of the memory at once.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    process = subprocess.Popen(command, env=os.environ | variables)
    try:
        process.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def has_gpu() -> bool:
    """Says whether the machine has a GPU that PyTorch sees."""
    command = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", command]).returncode == 0


def fastest(found: list[dict]) -> str:
    """Returns the part with the fastest SimCLR; PyTorch's without any."""
    speeds = {
        line["part"]: line["images_per_second"]
        for line in reversed(found)
        if line["method"] == "simclr" and "images_per_second" in line
    }
    return max(speeds, key=lambda part: speeds[part], default="torch")


def not_run(found: list[dict], small: bool) -> list[str]:
    """Returns what was not measured: "part method batch"."""
    done = {(x["part"], x["method"], x.get("batch")) for x in found}
    missing = [
        f"{part} {method} {batch}"
        for part in PARTS
        for batch in ((16, 8) if small else (256, 64))
        for method in METHODS
        if (part, method, batch) not in done
    ]
    trained = any(line["part"] == TRAINING for line in found)
    return missing if trained else [*missing, TRAINING]


def check(output: Path | None, small: bool, seconds: float) -> list[dict]:
    """Runs all parts, and returns their lines."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"

        def save() -> list[dict]:
            found = read_lines(lines)
            if output is not None:
                contents = {"lines": found, "not_run": not_run(found, small)}
                partial = output.with_suffix(".part")
                partial.write_text(json.dumps(contents, indent=1) + "\n")
                partial.replace(output)
            return found

        for part, (backend, _, share) in PARTS.items():
            if importlib.util.find_spec(backend) is not None:
                run_part(part, backend, lines, small, share * seconds)
                save()
        part = fastest(read_lines(lines))
        backend, compiled, _ = PARTS[part]
        left = seconds - (time.perf_counter() - start)
        name = f"{TRAINING}_compiled" if compiled else TRAINING
        run_part(name, backend, lines, small, left)
        return save()


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description="Measure and train on this machine's GPU, in 8 minutes."
    )
    add = parser.add_argument
    add("--output", type=Path, help="default: docs/results/gpu_check.json")
    add("--small", action="store_true", help="tiny, and without a GPU")
    add("--seconds", type=float, default=480, help="for everything (480)")
    add("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    small, output = options.small, options.output
    if options.part in PARTS:
        measure_all(options.part, output, small)
        return 0
    if options.part:
        compiled = options.part != TRAINING
        train(output, small, compiled, options.seconds)
        return 0
    if not small and not has_gpu():
        parser.error(
            "PyTorch found no GPU. --small tries the script without one."
        )
    if output is None and not small:
        output = RESULTS / "gpu_check.json"
    found = check(output, small, options.seconds)
    missing = not_run(found, small)
    print(f"not run: {', '.join(missing) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
