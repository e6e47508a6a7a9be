"""Several processes over gloo, as a launcher would start them."""

import os
import socket
import subprocess
import sys

from tests.conftest import ROOT


def run_ranks(code: str, num_ranks: int = 2) -> None:
    """Run the same code in every rank, and wait for all; what they said is told if one fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(num_ranks)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    outputs = [process.communicate(timeout=280)[0] for process in processes]
    statuses = [process.returncode for process in processes]
    assert statuses == [0] * num_ranks, "\n".join(outputs)[-3000:]
