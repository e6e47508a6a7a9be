"""Every way a command or a trial can end badly, each with its exit status.

Errors cross process borders, so each takes exactly one argument (the message) and pickles.
A message is one sentence: what must hold, what came, where, what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USER = 2
EXIT_PARTIAL = 3
EXIT_UNDECIDED = 4
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143


class SymnoiseError(Exception):
    """Base of all errors that a command reports in one line instead of a traceback."""

    exit_code = EXIT_FAILED
    kind = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(SymnoiseError, ValueError):
    """The configuration or the command line asks for something that cannot be."""

    exit_code = EXIT_USER
    kind = "user"


class DataError(UserError):
    """A data file is missing, unreadable, or holds nothing that can be used."""

    kind = "data"


class JudgeError(SymnoiseError):
    """Answers could not be judged, so there is no score."""

    kind = "judge"


class DivergedError(SymnoiseError, ArithmeticError):
    """Training met a non-finite loss or gradient."""

    kind = "diverged"


class OutOfMemoryError(SymnoiseError, MemoryError):
    """The device or the host ran out of memory."""

    kind = "out of memory"


class InfrastructureError(SymnoiseError, RuntimeError):
    """A worker, node or connection was lost; the configuration is not to blame."""

    kind = "infrastructure"


class CancelledError(SymnoiseError):
    """Somebody stopped the trial before its end; `seconds` are those that it took, by phase."""

    kind = "cancelled"
    seconds: Mapping[str, float] = MappingProxyType({})


ERRORS: dict[str, type[SymnoiseError]] = {
    error.kind: error
    for error in (
        SymnoiseError,
        UserError,
        DataError,
        JudgeError,
        DivergedError,
        OutOfMemoryError,
        InfrastructureError,
        CancelledError,
    )
}
"""Kind -> class, to rebuild an error from what another process wrote down."""

_NO_MEMORY = "can't allocate memory"


def kind_of(error: BaseException) -> str:
    """Name the failure kind of any exception, ours or not."""
    if isinstance(error, SymnoiseError):
        return error.kind
    by_name = type(error).__name__ == "OutOfMemoryError"  # torch's, on a GPU
    by_text = isinstance(error, RuntimeError) and _NO_MEMORY in str(error)  # and on the CPU
    if isinstance(error, MemoryError) or by_name or by_text:
        return OutOfMemoryError.kind
    return SymnoiseError.kind


def reason_of(error: BaseException) -> str:
    """One line that says what went wrong, with the type where it is not one of ours."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, SymnoiseError) else f"{type(error).__name__}: {text}"


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an exception says, in one line of at most so many characters."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
