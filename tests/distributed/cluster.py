"""The environment variables of processes that train together."""

import contextlib
import json
import socket

import keras


def free_ports(count):
    """Returns the numbers of ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


def cluster(count):
    """Returns the variables of each process, with ports that are free."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    if keras.config.backend() == "jax":
        return [
            {
                "KERAS_DISTRIBUTION_JOB_ADDRESSES": addresses[0],
                "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
                "KERAS_DISTRIBUTION_PROCESS_ID": str(rank),
            }
            for rank in range(count)
        ]
    return [
        {
            "TF_CONFIG": json.dumps(
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": rank},
                }
            )
        }
        for rank in range(count)
    ]
