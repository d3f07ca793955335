"""Measures training steps on a GPU, and trains on it, in eight minutes.

    python scripts/gpu_check.py

needs the repository and a Python with kerassl's backends. It prints images per
second of SimCLR, BYOL, MoCo v2, SwAV and MAE (ResNet-50 or ViT-S, 224 px,
bfloat16) on PyTorch, as it is and compiled, on JAX and on TensorFlow; with
PyTorch also kernels and waits of the host in a step; and the memory. Then it
trains SimCLR with `resnet_18_small` on CIFAR-10 for the time that is left, on
what was fastest, and scores it. Everything is saved in
docs/results/gpu_check.json after each line, so that nothing is lost when the
script is stopped. A measurement that takes more than half of its part's time,
such as a first compilation, is stopped, and its part goes on with the next one.
What failed or was stopped has a line with its error; backends that aren't
installed and what didn't fit into the time are listed as not run.

`--small` tries all of this with tiny encoders, on any machine; it saves nothing
unless `--output` says where.
"""

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from results import RESULTS, append_line, read_lines
from trainings.pace import epoch_seconds

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
TRAINING_SHARE = 1 - sum(share for *_, share in PARTS.values())
# The share of a part's time after which one measurement is stopped.
PATIENCE = 0.5
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
    from benchmark import gpu

    from kerassl import recipes
    from kerassl.data import ImageData

    forget()
    encoder = "vit" if method == "mae" else "resnet"
    size = 32 if small else 224
    recipe = recipes.get(method, "cpu" if small else "imagenet").replace(
        encoder=f"{encoder}_nano"
        if small
        else {"vit": "vit_small", "resnet": "resnet_50"}[encoder],
        batch_size=batch,
        precision="mixed_bfloat16",
    )
    model = recipes.build_model(recipe, (size, size, 3), 2 * STEPS)
    if compiled:
        model.compile(model.optimizer, jit_compile=True)
    images = np.random.default_rng(0).integers(
        0, 256, (batch, size, size, 3), dtype="uint8"
    )

    def fit(steps: int) -> float:
        # As `kerassl pretrain` reads them: on PyTorch ahead, in a thread.
        data = ImageData(np.concatenate([images] * steps))
        start = time.perf_counter()
        model.fit(data, batch_size=batch, verbose=0)
        return time.perf_counter() - start

    first = fit(3)
    seconds = fit(STEPS) / STEPS
    return {
        "images_per_second": round(batch / seconds, 1),
        "first_steps_seconds": round(first, 1),
        **calls_of_a_step(model, images),
        **gpu(),
    }


def left_over(part: str, found: list[dict], small: bool) -> list[dict]:
    """Returns what a part still has to measure, the large batches first."""
    every: list[dict[str, Any]]
    if part not in PARTS:
        every = [{"part": TRAINING, "method": "simclr"}]
    else:
        every = [
            {"part": part, "method": method, "batch": batch}
            for batch in ((16, 8) if small else (256, 64))
            for method in METHODS
        ]
    return [
        one
        for one in every
        if not any(one.items() <= line.items() for line in found)
    ]


def measure_all(part: str, lines: Path, small: bool) -> None:
    """Measures on one backend what has no line yet."""
    for one in left_over(part, read_lines(lines), small):
        try:
            compiled = PARTS[part][1]
            found = measure(one["method"], one["batch"], small, compiled)
        except Exception as error:  # Such as too little memory.
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        append(lines, {**one, **found})


def append(lines: Path, line: dict) -> None:
    """Appends a line to the file, and prints it."""
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
    epoch = epoch_seconds(model, kerassl.data.ImageData(images), batch)
    left = seconds - (time.perf_counter() - start) - scoring
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
    append(lines, line)


def run_part(
    part: str,
    backend: str,
    lines: Path,
    small: bool,
    seconds: float,
    save: Callable[[], Any],
) -> None:
    """Runs a part in processes of its own, for at most so many seconds.

    A process that ends early, or takes too long for one measurement, is
    followed by another one for the rest.

    Args:
        part: str, its name.
        backend: str.
        lines: the file that gets a line for each measurement.
        small: bool.
        seconds: float.
        save: function that is called after each line.
    """
    end = time.perf_counter() + seconds
    patience = PATIENCE * seconds if part in PARTS else seconds
    while (left := end - time.perf_counter()) > 0:
        missing = left_over(part, read_lines(lines), small)
        if not missing:
            return
        status = run_process(part, backend, lines, small, left, patience, save)
        now = left_over(part, read_lines(lines), small)
        if now:
            reason = "stopped: it took too long"
            if status is not None:
                reason = f"the process ended with status {status}"
            append(lines, {**now[0], "error": reason})
            save()


def run_process(
    part: str,
    backend: str,
    lines: Path,
    small: bool,
    seconds: float,
    patience: float,
    save: Callable[[], Any],
) -> int | None:
    """Runs a process until it ends, or is too slow.

    Args:
        part: as in `run_part`.
        backend: as in `run_part`.
        lines: as in `run_part`.
        small: as in `run_part`.
        seconds: float, for all it does.
        patience: float, the seconds that it may take for a line.
        save: as in `run_part`.

    Returns:
        Its exit status, or `None` if it was stopped.
    """
    command = [sys.executable, __file__, "--part", part, "--output", str(lines)]
    command += ["--seconds", str(seconds), *(["--small"] if small else [])]
    variables = {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Otherwise JAX takes most of the memory at once.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    process = subprocess.Popen(command, env=os.environ | variables)
    end = time.perf_counter() + seconds
    count, late = len(read_lines(lines)), time.perf_counter() + patience
    try:
        while time.perf_counter() < min(end, late):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.2)
            if len(read_lines(lines)) > count:
                count, late = count + 1, time.perf_counter() + patience
                save()
        return None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        save()


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
    """Returns what has no line: "part method batch"."""
    return [
        name(one)
        for part in (*PARTS, TRAINING)
        for one in left_over(part, found, small)
    ]


def name(line: dict) -> str:
    """Returns what a line is about: "part method batch"."""
    if line["part"] == TRAINING:
        return TRAINING
    return f"{line['part']} {line['method']} {line['batch']}"


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

        # What a part leaves of its time is the others'.
        shares = {
            part: share
            for part, (backend, _, share) in PARTS.items()
            if importlib.util.find_spec(backend) is not None
        }
        for part in list(shares):
            left = seconds - (time.perf_counter() - start)
            total = sum(shares.values()) + TRAINING_SHARE
            backend, share = PARTS[part][0], shares.pop(part) / total
            run_part(part, backend, lines, small, share * left, save)
        part = fastest(read_lines(lines))
        backend, compiled, _ = PARTS[part]
        left = seconds - (time.perf_counter() - start)
        training = f"{TRAINING}_compiled" if compiled else TRAINING
        run_part(training, backend, lines, small, left, save)
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
    if not small and importlib.util.find_spec("torch") and not has_gpu():
        parser.error(
            "PyTorch found no GPU. --small tries the script without one."
        )
    if output is None and not small:
        output = RESULTS / "gpu_check.json"
    # As with Ctrl-C, the process of a part ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = check(output, small, options.seconds)
    failed = [f"{name(x)} ({x['error']})" for x in found if "error" in x]
    print(f"failed or stopped: {', '.join(failed) or 'nothing'}")
    print(f"not run: {', '.join(not_run(found, small)) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
