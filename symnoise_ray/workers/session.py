"""The Ray session of a sweep, and its end by signal.

In: the environment. Out: a connected driver. A sweep on its own starts
a private local Ray and ends it; inside a job, or where RAY_ADDRESS names a cluster, it joins that.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - see `_beside`
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import psutil

from symnoise_ray.errors import (
    EXIT_FAILED,
    EXIT_SIGINT,
    EXIT_SIGTERM,
    InfrastructureError,
    UserError,
    one_line,
)
from symnoise_ray.preflight.resources import runs_alone
from symnoise_ray.workers.guard import Guard
from symnoise_ray.workers.pillars import Pillars, name_of

START_SECONDS = 120
"""How long the parts of a private Ray wait for each other, since a busy machine is slow. A raylet
that dies meanwhile is noticed no earlier."""
NICENESS = "0"
"""Of the workers of a private Ray. By Ray's default of 15, where more runs than there are cores,
trainings get a thirtieth of what any other program of the machine gets, this process among them."""
TIMED_OUT = "timed out during startup"
"""In the message of a Ray whose node took over 30 s to start, which no setting of Ray changes."""
LEFT_OUT = ("start_log_monitor", "start_monitor", "start_api_server")
"""Methods of Ray's node by which it starts the reader of its workers' logs, whose lines nobody
prints; the autoscaler, which has no machines to add; and the server of the dashboard, which starts
where the dashboard is off too. They take two seconds of CPU at every start."""
OBJECT_STORE_BYTES = 200 * 2**20
"""Of a private local Ray; trials pass files, not objects."""


CONTROLLER = "ray::TrainContr"
"""How the name of the process that holds a slot begins; the system may cut it here."""
FREE_SECONDS = 3.0
"""How long threads may take to hear that it was ended; one that still starts takes a moment."""
THREAD_PREFIX = "symnoise-in-ray"
"""Names of threads that block in calls of Ray begin so."""

END_SECONDS = 1.0
"""How long the processes of a private local Ray may take to leave by themselves."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the sweep; carries the exit status of the signal."""

    def __init__(self, exit_code: int = EXIT_SIGINT) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@contextmanager
def ray_session(
    say: Callable[[str], None], meanwhile: Callable[[], None] | None = None
) -> Iterator[None]:
    """Connect to Ray, or use the connection that this process has.

    Args:
        say: Tells a person a line, where Ray has to be started once more.
        meanwhile: Imports what is needed next, in a thread while Ray starts: it takes seconds, and
            this process would only wait. An error of it comes again where the import is used.

    Raises:
        InfrastructureError: Ray does not start, or the cluster that RAY_ADDRESS names does not
            answer.
        UserError: this is not the main thread, and this process has no connection.
    """
    import ray  # half a second, which a check of the configuration need not pay

    if ray.is_initialized():  # by the notebook or script around the sweep, which also ends it
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise UserError(
            "a sweep must be run by the main thread, since it ends by signals, but was called from "
            f"the thread {threading.current_thread().name}; call it from there, or connect to Ray "
            "before"
        )
    _interrupted.clear()  # an earlier sweep of this process may have been
    private = runs_alone()
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.getsignal(number) or signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _interrupt)
        guard = stack.enter_context(Guard()) if private else None
        stack.enter_context(_connected(guard, say, meanwhile))
        # ray.init replaces the handler of SIGTERM, so ours is set again.
        signal.signal(signal.SIGTERM, _interrupt)
        yield


@contextmanager
def _connected(
    guard: Guard | None, say: Callable[[str], None], meanwhile: Callable[[], None] | None
) -> Iterator[None]:
    """A connection for the time of a block; a private Ray, which has a guard, ends with it."""
    import ray

    before = _children()
    pillars: Pillars | None = None
    try:
        with _no_collection(), _beside(meanwhile):
            _connect(guard is not None, before, say)
        if guard is not None:
            guard.is_up()
            pillars = Pillars(_children() - before, _interrupted, _give_up)
        with pillars or contextlib.nullcontext():
            yield
    except KeyboardInterrupt:
        if pillars is not None and pillars.lost:
            raise _lost(pillars.lost) from None
        # Ray hands on a plain KeyboardInterrupt, whatever the handler raised.
        raise Interrupted(EXIT_SIGTERM if _interrupted.is_set() else EXIT_SIGINT) from None
    finally:
        # What is left to do takes a moment; a second Ctrl-C must not leave processes behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if guard is not None:
            _free_threads(before)
        started = _children() - before if guard is not None else set()
        if _threads_in_ray():
            _leave_open()
            _kill(started)
        else:
            with _no_collection():
                ray.shutdown()
            _, alive = psutil.wait_procs(started, timeout=END_SECONDS)
            _kill(alive)


@contextmanager
def _beside(work: Callable[[], None] | None) -> Iterator[None]:
    """Do work in a thread during a block, in which this process forks.

    What the work imports must ask for nothing before and after a fork (`os.register_at_fork`): in
    the middle of one it would be asked after it alone. `concurrent.futures.thread` does ask, so
    this module imports it first; Ray imports others that do.
    """

    def quietly() -> None:
        with contextlib.suppress(Exception):
            if work is not None:
                work()

    thread = threading.Thread(target=quietly)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _connect(private: bool, before: set[psutil.Process], say: Callable[[str], None]) -> None:
    try:
        _init(private)
    except Exception as error:  # Ray raises all kinds
        if not private or TIMED_OUT not in str(error):
            raise InfrastructureError(f"Ray must start or answer, but {one_line(error)}") from None
    else:
        return
    say("Ray did not start in time, as on a machine that is too busy; it is started once more")
    _kill(_children() - before)
    try:
        _init(private)  # once more: what is on disk now is read faster
    except Exception as error:
        raise InfrastructureError(
            f"Ray must start, but failed twice: {one_line(error)}; this machine may be too busy"
        ) from None


def _init(private: bool) -> None:
    import ray

    if not private:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        return
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
    os.environ.setdefault("RAY_worker_niceness", NICENESS)
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # for a dashboard, which it has not
    with _lean():
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextmanager
def _lean() -> Iterator[None]:
    """Start Ray without what a sweep never asks of its own Ray, since no setting turns that off.

    What a sweep has lost it says itself; other words are in Ray's log. The names are private: the
    version of ray is pinned, and a test counts the processes.
    """
    from ray._private import node, worker

    parts = [(worker, "listen_error_messages"), *((node.Node, name) for name in LEFT_OUT)]
    kept = [getattr(owner, name) for owner, name in parts]
    for owner, name in parts:
        setattr(owner, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for (owner, name), part in zip(parts, kept, strict=True):
            setattr(owner, name, part)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Let no thread collect garbage meanwhile.

    While modules are imported it would search them again and again. And Ray ends the whole process,
    with status 1 and no word, if one of its references is freed while it shuts down; a table that
    is refreshed by a thread is enough to start a collection.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _children() -> set[psutil.Process]:
    """The processes below this one; those that are not of our Ray are left alone."""
    return set(psutil.Process().children(recursive=True))


def _kill(processes: Collection[psutil.Process]) -> None:
    """End processes of our own Ray by their ids, and see them gone; a busy machine is slow."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=END_SECONDS)


def _lost(name: str) -> InfrastructureError:
    return InfrastructureError(
        f"Ray must run to the end, but its process {name} was lost; give the same command again; "
        "for tune add --resume: what was done is kept"
    )


def _give_up(name: str) -> None:
    """End this process beside a main thread that waits for what does not come.

    Its guard ends the processes that it leaves.
    """
    error = _lost(name)
    print(f"error: {error.message}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


_left_open = threading.Event()
"""Set where the connection to a Ray that was ended was left as it was."""


def is_left_open() -> bool:
    """Whether this process is still connected to a Ray that it has ended, and must begin no other.

    It must leave by `leave`: an ordinary exit asks that Ray, and waits for a minute.
    """
    return _left_open.is_set()


def _threads_in_ray() -> bool:
    """Whether threads of ours still wait for an answer of Ray.

    Ray ends the whole process when such a thread calls it after a shutdown, so there must be none.
    """
    return any(each.name.startswith(THREAD_PREFIX) for each in threading.enumerate())


def _free_threads(before: set[psutil.Process]) -> None:
    """End the controllers of Ray Train that threads of ours still wait for, so that they hear it.

    After a lost GCS they do not.
    """
    deadline = time.monotonic() + FREE_SECONDS
    while _threads_in_ray() and time.monotonic() < deadline:
        _kill([each for each in _children() - before if name_of(each).startswith(CONTROLLER)])
        time.sleep(0.1)


def _leave_open() -> None:
    """Keep what comes at the end of a script from asking a Ray that does not answer."""
    _left_open.set()
    sys.excepthook = sys.__excepthook__  # Ray's own asks first, and tells of the error afterwards
    atexit.register(leave, EXIT_FAILED)


def leave(status: int) -> None:
    """Exit at once if a connection to Ray is left open."""
    if is_left_open():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


_interrupted = threading.Event()
"""Set by the first SIGTERM."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _interrupted.set()
    raise Interrupted(EXIT_SIGTERM)
