"""One sweep at a time in a directory: a file names the owner, and its time of change says it lives.

In: a directory. Out: the right to write into it, or one line that says who has it. A lock of the
operating system would do on one machine; on shared file systems it is often not there. Ages are
judged by the file system's own clock, so that machines need not agree on the time.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from symnoise_ray.errors import UserError
from symnoise_ray.records.layout import OWNER

BEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""An owner on another machine that gave no sign of life for so long is gone."""
SETTLE_SECONDS = 0.3
"""Of two that take over at the same time, both see after so long whose name is in the file."""


@contextmanager
def hold(directory: Path) -> Iterator[None]:
    """Own a directory for the time of a block; the file goes away with it.

    An owner that was killed is replaced: at once where it ran on this machine, else when it is
    stale. One that was only asleep finds itself replaced, and is interrupted.

    Raises:
        UserError: somebody else owns it.
    """
    path = directory / OWNER
    own = _about_us()
    _take(path, own)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, own["id"], stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _read(path).get("id") == own["id"]:
            path.unlink(missing_ok=True)


def has_owner(directory: Path) -> bool:
    """Whether a sweep runs in a directory, as far as its owner's signs of life tell.

    Raises:
        OSError: the directory cannot be written into.
    """
    path = directory / OWNER
    return _may_live(_read(path), _age(path), _about_us())


def _about_us() -> dict[str, Any]:
    process = psutil.Process()
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return {
        "id": secrets.token_hex(8),
        "user": user,
        "host": socket.gethostname(),
        "processes": _process_space(),
        "pid": process.pid,
        "started": process.create_time(),
    }


def _process_space() -> str:
    """Containers of one host name may still have process numbers of their own."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _take(path: Path, own: dict[str, Any]) -> None:
    text = json.dumps(own, indent=2) + "\n"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _require_gone(path, own)
        fresh = path.with_name(f".{OWNER}.{own['id']}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
        time.sleep(SETTLE_SECONDS)
        if _read(path).get("id") != own["id"]:
            _require_gone(path, own)


def _require_gone(path: Path, own: dict[str, Any]) -> None:
    """Refuse a directory whose owner lives, or may live."""
    owner, age = _read(path), _age(path)
    if not _may_live(owner, age, own):
        return
    here = _is_here(owner, own)
    whose = (
        f"{owner.get('user')} on {owner.get('host')} (process {owner.get('pid')})"
        if owner
        else f"somebody whose name in {OWNER} cannot be read"
    )
    raise UserError(
        f"{path.parent}: must have one sweep at a time, but {whose} has one in it, whose last sign "
        f"of life is {age:.0f} s old; wait for its end or stop it"
        + ("" if here else f", or, if it is dead, try again after {STALE_SECONDS:.0f} s")
    )


def _is_here(owner: dict[str, Any], own: dict[str, Any]) -> bool:
    return all(owner.get(name) == own[name] for name in ("host", "processes"))


def _may_live(owner: dict[str, Any], age: float | None, own: dict[str, Any]) -> bool:
    """Whether an owner lives; one that cannot be asked is taken to live until it is stale."""
    if age is None:
        return False
    if _is_here(owner, own):
        return _lives(owner["pid"], owner["started"])
    return age <= STALE_SECONDS


def _lives(pid: int, started: float) -> bool:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return not ended and abs(process.create_time() - started) < 1
    return False


def _age(path: Path) -> float | None:
    """Seconds since the owner's last sign of life; None without one."""
    probe = path.with_name(f".{OWNER}.{secrets.token_hex(4)}")
    try:
        probe.touch()
        return max(0.0, probe.stat().st_mtime - path.stat().st_mtime)
    except FileNotFoundError:
        return None
    finally:
        probe.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The owner; empty where there is none, or where it was killed while it wrote its name."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _beat(path: Path, own: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        with suppress(OSError):  # storage that is away for a moment
            if _read(path).get("id") not in (own, None):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            os.utime(path)
