"""One warm process that trains and answers trial after trial, without anything around it.

bare.py GO FOLDER CONFIG...: warms up as a slot does, says that it is ready by a file beside GO,
waits for GO, and leaves every trial's files in FOLDER.
"""

import os
import sys
import time
from pathlib import Path

import torch

from symnoise_ray.config.loading import load_trial
from symnoise_ray.workers.slots import warm_up
from symnoise_ray.workers.task import run_task

if __name__ == "__main__":
    torch.set_num_threads(1)
    go, folder, configs = Path(sys.argv[1]), Path(sys.argv[2]), list(map(Path, sys.argv[3:]))
    warm_up(load_trial(configs[0]))
    go.with_name(f"{go.name}.ready-{os.getpid()}").touch()
    while not go.exists():
        time.sleep(0.01)
    for config in configs:
        target = folder / config.parent.name
        target.mkdir(parents=True)
        outcome = run_task(
            load_trial(config), target, report=lambda record: None, cancelled=lambda: False
        )
        assert outcome.status == "done", outcome
