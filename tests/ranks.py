"""Several processes over gloo, as a launcher would start them."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_ranks(code: str, *arguments: object, num_ranks: int = 2) -> list[subprocess.Popen[str]]:
    """Start the same code in every rank.

    The arguments are in `sys.argv[1:]`, the number of the rank in the variable RANK.
    """
    port = str(free_port())
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_ranks)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]


def run_ranks(code: str, *arguments: object, num_ranks: int = 2) -> list[str]:
    """Run the same code in every rank, and wait for all; returns what each printed."""
    processes = start_ranks(code, *arguments, num_ranks=num_ranks)
    outputs = [process.communicate(timeout=1200)[0] for process in processes]
    statuses = [process.returncode for process in processes]
    assert statuses == [0] * num_ranks, "\n".join(outputs)[-3000:]
    return outputs
