"""Where a sweep came from, in the tags that MLflow's own runs have: user, source, git commit.

In: the file of the search space. Out: tags; what cannot be told is left out.
"""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

_SECONDS = 5.0


def origin_tags(space: Path) -> dict[str, str]:
    """Tags of every run of a sweep: who ran which search space, at which commit."""
    tags = {"mlflow.source.name": str(space), "mlflow.source.type": "LOCAL"}
    if user := _user():
        tags["mlflow.user"] = user
    if commit := _commit(space.absolute().parent):
        tags["mlflow.source.git.commit"] = commit
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a number without a name
        return ""


def _commit(folder: Path) -> str:
    """The commit that a folder of a git repository stands at; empty if it is in none."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "HEAD"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
