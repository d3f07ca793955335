"""The command line with several processes: sharing, failing, resuming."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
import yaml

from kerassl.cli.main import main
from tests.backends import more, once
from tests.distributed.cluster import cluster, free_ports

ROOT = Path(__file__).parents[2]
ARGUMENTS = (
    "simclr --data fashion_mnist_small --encoder resnet_nano --limit 128 "
    "--batch-size 32"
).split()

BACKEND = keras.config.backend()


def environment(**more):
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    return {
        **os.environ,
        "PATH": paths,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        **more,
    }


def rows(folder):
    with open(folder / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def trainers(folder):
    """Returns the ids of the processes that train into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            environ = (path.parent / "environ").read_bytes()
        except OSError:  # The process has ended.
            continue
        if str(folder).encode() in words and b"\0LOCAL_RANK=" in environ:
            found.append(int(path.parent.name))
    return sorted(found)


@more("PyTorch's run", always_on="torch")
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_one_process_is_killed_and_the_run_goes_on_alone(tmp_path):
    folder = tmp_path / "run"
    start = [sys.executable, "-m", "kerassl", "pretrain", *ARGUMENTS]
    start += ["--epochs", "40", "--output", str(folder), "--devices", "2"]
    # On PyTorch the command starts the second process itself.
    variables = [{}] if BACKEND == "torch" else cluster(2)
    running, *others = [
        subprocess.Popen(
            start,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for more in variables
    ]
    end = time.monotonic() + 240
    while not (folder / "history.csv").exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    if BACKEND == "torch":
        _, second = trainers(folder)
        os.kill(second, signal.SIGKILL)
    for other in others:
        other.kill()
        other.communicate()
    out, err = running.communicate(timeout=60)
    assert running.returncode != 0
    assert "Finished" not in out
    if BACKEND == "torch":
        assert "SIGKILL" in err or "exitcode  : -9" in err
    else:
        assert "error: process 0 of 2 failed, or lost another" in err, err
        assert f"Go on with: kerassl pretrain --resume --output {folder}" in err
    done = len(rows(folder))
    assert 1 <= done < 40
    # A checkpoint of two devices resumes with one.
    settings = json.loads((folder / "recipe.json").read_text())
    assert settings["devices"] == 2
    from kerassl import runs

    run = runs.resume(folder)
    assert run.position.epoch >= done
    run.model.stop_training = False
    run.recipe = run.recipe.replace(epochs=run.position.epoch + 1)
    run.train()
    assert len(rows(folder)) == run.position.epoch > done


@once
def test_slurm_example_on_two_hosts_that_are_one(tmp_path):
    """With a fake `srun` of two lines, which starts the command twice."""
    programs = {
        "scontrol": "echo 127.0.0.1",
        "srun": '"$@" & first=$!\n"$@"\nwait $first',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\nset -e\n{text}\n")
        (tmp_path / name).chmod(0o755)
    folder = tmp_path / "run"
    python = Path(sys.executable).parent
    finished = subprocess.run(
        [ROOT / "examples/slurm.sh", *ARGUMENTS]
        + ["--epochs", "1", "--output", folder],
        env=environment(
            PATH=f"{tmp_path}:{python}:{os.defpath}",
            SLURM_JOB_NODELIST="host[0-1]",
            SLURM_JOB_NUM_NODES="2",
            SLURM_JOB_ID="17",
            PORT=str(free_ports(1)[0]),
        ),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Finished.") == 1
    assert "torch on cpu, 2 devices" in finished.stdout
    assert len(rows(folder)) == 1


@once
def test_kubernetes_example_is_a_valid_command(tmp_path, capsys):
    text = (ROOT / "examples/kubernetes.yaml").read_text()
    service, job = yaml.safe_load_all(text)
    name = job["metadata"]["name"]
    pod = job["spec"]["template"]["spec"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    (script,) = container["args"]
    assert f"--nnodes {job['spec']['completions']} " in script
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--nproc-per-node {gpus} " in script
    # Read by bash, with a fake torchrun that prints its arguments.
    fake = tmp_path / "torchrun"
    fake.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    words = subprocess.run(
        [*container["command"], script],
        env=environment(PATH=f"{tmp_path}:{os.defpath}"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    command = words[words.index("-m") + 2 :]
    assert command[:2] == ["pretrain", "simclr"]
    # It fails at the data set, which is not here.
    assert main(command) == 2
    assert "no folder /data/imagenet" in capsys.readouterr().err
