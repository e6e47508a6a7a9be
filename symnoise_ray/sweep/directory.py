"""The directory of a sweep: a new one, or that of a sweep that goes on.

In: the sweep's name, and what the command line says. Out: a directory that this process alone
writes into for as long as it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from symnoise_ray.errors import DataError, UserError
from symnoise_ray.preflight.resources import in_ray_job
from symnoise_ray.records.files import read_json
from symnoise_ray.records.layout import OWNER, PREFLIGHT, SWEEP
from symnoise_ray.sweep.lease import hold


@contextmanager
def claim_directory(name: str, output: Path | None, *, resume: bool = False) -> Iterator[Path]:
    """Make the sweep's directory: `output`, else the first free of runs/NAME, runs/NAME-2, ...

    It is made at once, so that no two sweeps take the same, and goes away if nothing is written.
    To resume, `output` or the last of runs/NAME-N that holds a sweep is taken; without one, a new
    one is made. Inside a Ray job the working directory is a copy that goes away, so runs lie in
    the home.

    Raises:
        UserError: `output` holds something already, another sweep runs in it, or a directory
            cannot be made there.
    """
    root = (Path.home() if in_ray_job() else Path.cwd()) / "runs"
    with ExitStack() as stack:
        try:
            directory = _choose(root, name, output, resume=resume)
            stack.callback(_remove_empty, directory)
            stack.enter_context(hold(directory))
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}"
            raise UserError(f"--output {output or root}: must be writable, but {reason}") from None
        yield directory


def _remove_empty(directory: Path) -> None:
    with suppress(OSError):  # it holds something
        directory.rmdir()


def _choose(root: Path, name: str, output: Path | None, *, resume: bool) -> Path:
    if resume:
        found = _last(root, name) if output is None else output
        if found is not None and (found / SWEEP).is_file():
            return found.absolute()
    return _first_free(root, name) if output is None else _empty(output)


def _empty(output: Path) -> Path:
    if output.exists() and (not output.is_dir() or _holds_something(output)):
        again = ", or go on with --resume" if (output / SWEEP).is_file() else ""
        raise UserError(
            f"--output {output}: must be a new or empty directory, since results are never "
            f"overwritten; choose another{again}"
        )
    output.mkdir(parents=True, exist_ok=True)
    return output.absolute()


def _holds_something(folder: Path) -> bool:
    """An owner's file alone is nothing: whose it is, and whether it lives, is asked later.

    Nor is what a sweep leaves that was killed in its checks: a scheduler runs it again.
    """
    return any(
        path.name != OWNER and not path.name.startswith(PREFLIGHT) for path in folder.iterdir()
    )


def _numbered(root: Path, name: str) -> Iterator[Path]:
    number = 1
    while True:
        yield root / (name if number == 1 else f"{name}-{number}")
        number += 1


def _first_free(root: Path, name: str) -> Path:
    for directory in _numbered(root, name):
        with suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory
    raise AssertionError("numbers do not end")


def _last(root: Path, name: str) -> Path | None:
    """The directory of the highest number that holds a sweep; those before it may be gone."""
    form = re.compile(re.escape(name) + r"(?:-([1-9]\d*))?")
    numbers = {}
    for path in root.iterdir() if root.is_dir() else ():
        match = form.fullmatch(path.name)
        if match and (path / SWEEP).is_file() and not _is_of_another(path, name):
            numbers[int(match[1] or 1)] = path
    return numbers[max(numbers)] if numbers else None


def _is_of_another(directory: Path, name: str) -> bool:
    """Whether the sweep there says another name: `small-2` may be what a sweep itself is called."""
    with suppress(DataError, LookupError, TypeError):  # a damaged file is told of later
        return bool(read_json(directory / SWEEP)["name"] != name)
    return False
