"""The tasks of lm-evaluation-harness that a trial names, looked up before anything starts.

In: a `HarnessConfig`. Out: lm_eval's own index of tasks, or an error of one line that names what is
missing.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from pathlib import Path
from typing import Any

from symnoise_ray.config import HarnessConfig
from symnoise_ray.errors import UserError


def task_index(config: HarnessConfig) -> Any:
    """lm_eval's `TaskManager`, which knows all the tasks of the trial.

    If the user's folder holds all of them, only that folder is read, because reading the tasks that
    come with lm_eval takes ten seconds, once per process.

    Raises:
        UserError: lm_eval is missing, or does not know a task.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "harness.tasks needs the package lm_eval (the extra harness): pip install 'lm_eval[hf]'"
        )
    from lm_eval.tasks import TaskManager  # an optional package that takes seconds to import

    folder = config.include_path
    if folder is not None:
        if not any(Path(folder).glob("**/*.yaml")):
            raise UserError(
                f"harness.include_path={folder}: must be a folder with task files (*.yaml), but "
                "there is none"
            )
        own = TaskManager(include_path=folder, include_defaults=False)
        if set(config.tasks) <= set(own.all_subtasks):  # a group may name tasks of others
            return own
    index = _all_tasks(folder)
    for name in config.tasks:
        if name not in index.all_tasks:
            near = difflib.get_close_matches(name, index.all_tasks, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UserError(
                f"harness.tasks: must be tasks or groups that lm_eval knows, but got {name!r}{hint}"
            )
    return index


@functools.lru_cache(maxsize=2)
def _all_tasks(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager  # see task_index

    return TaskManager(include_path=folder)
