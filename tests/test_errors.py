"""Errors travel between processes in one sentence, and each ends a command in its own way."""

import pickle

import pytest
import torch

from symnoise_ray.errors import (
    ERRORS,
    EXIT_FAILED,
    EXIT_USER,
    CancelledError,
    DataError,
    DivergedError,
    InfrastructureError,
    JudgeError,
    OutOfMemoryError,
    SymnoiseError,
    UserError,
    kind_of,
    reason_of,
)

EXIT_CODES = {
    SymnoiseError: EXIT_FAILED,
    UserError: EXIT_USER,
    DataError: EXIT_USER,
    JudgeError: EXIT_FAILED,
    DivergedError: EXIT_FAILED,
    OutOfMemoryError: EXIT_FAILED,
    InfrastructureError: EXIT_FAILED,
    CancelledError: EXIT_FAILED,
}


def test_every_error_has_a_kind_of_its_own_and_can_be_rebuilt_from_it() -> None:
    assert set(ERRORS.values()) == set(EXIT_CODES)
    assert len(ERRORS) == len(EXIT_CODES)
    for kind, error in ERRORS.items():
        assert kind_of(error("told")) == kind


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda error: error.__name__)
def test_an_error_pickles_with_its_message_and_keeps_its_exit_status(
    error: type[SymnoiseError],
) -> None:
    again = pickle.loads(pickle.dumps(error("file.yaml:3: what must hold, but got 'x'")))
    assert type(again) is error
    assert again.message == str(again) == "file.yaml:3: what must hold, but got 'x'"
    assert again.exit_code == EXIT_CODES[error]


@pytest.mark.parametrize("error", EXIT_CODES, ids=lambda error: error.__name__)
def test_an_error_takes_exactly_one_message(error: type[SymnoiseError]) -> None:
    with pytest.raises(TypeError, match="message"):
        error()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="argument"):
        error("one", "two")  # type: ignore[call-arg]


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(UserError, ValueError)
    assert issubclass(DivergedError, ArithmeticError)
    assert issubclass(OutOfMemoryError, MemoryError)
    assert issubclass(InfrastructureError, RuntimeError)


def test_running_out_of_memory_is_recognised_wherever_it_comes_from() -> None:
    assert kind_of(MemoryError()) == "out of memory"
    assert kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "out of memory"
    assert kind_of(RuntimeError("something else")) == "error"


def test_a_reason_is_one_line_and_names_the_type_of_foreign_errors() -> None:
    assert reason_of(DataError("rows.json:\n  must be   JSON")) == "rows.json: must be JSON"
    assert reason_of(KeyError("step")) == "KeyError: 'step'"
    assert reason_of(ValueError()) == "ValueError: no message"
