"""Rows are tokenised once; what is on disk is whole or not there; an edited file is another one."""

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symnoise_ray.config import TrialConfig
from symnoise_ray.data import token_table
from symnoise_ray.data.token_table import TokenTable, cached
from symnoise_ray.data.tokens import IGNORE_INDEX, TokenRow, TokenRows
from symnoise_ray.errors import InfrastructureError
from symnoise_ray.records.files import contents
from symnoise_ray.training import corpus
from symnoise_ray.training.loop import train

ROWS = [
    TokenRow([5, 6, 7], [IGNORE_INDEX, 6, 7]),
    TokenRow([8], [8]),
    TokenRow([1, 2], [IGNORE_INDEX, 2]),
]


def table() -> TokenTable:
    return TokenTable.of(TokenRows(ROWS, Counter({"rows truncated": 2})), "alpaca")


def never() -> TokenTable:
    raise AssertionError("the rows were made again")


def test_a_table_holds_the_rows_it_was_made_of() -> None:
    made = table()
    assert len(made) == 3
    assert made.lengths == [3, 1, 2]
    assert made.num_answer_tokens == [2, 0, 1]  # a first token is never predicted
    assert [made.row(n).input_ids.tolist() for n in range(3)] == [[5, 6, 7], [8], [1, 2]]
    assert made.row(2).labels.tolist() == [IGNORE_INDEX, 2]


def test_the_second_time_nothing_is_made(tmp_path: Path) -> None:
    first = cached(tmp_path, {"data": "a"}, table)
    second = cached(tmp_path, {"data": "a"}, never)
    assert isinstance(second.input_ids, np.memmap)
    for name in ("input_ids", "labels", "starts"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
        assert np.array_equal(getattr(first, name), getattr(table(), name))
    assert second.counts == {"rows truncated": 2}
    assert second.template == "alpaca"


def test_another_origin_is_another_table(tmp_path: Path) -> None:
    cached(tmp_path, {"data": "a"}, table)
    with pytest.raises(AssertionError, match="made again"):
        cached(tmp_path, {"data": "b"}, never)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_write_that_was_cut_off_is_not_taken_for_a_table(tmp_path: Path) -> None:
    cached(tmp_path, {"data": "a"}, table)
    (place,) = tmp_path.iterdir()
    place.rename(tmp_path / f".{place.name[:8]}-killed")
    assert len(cached(tmp_path, {"data": "a"}, table)) == 3


def flip(file: Path) -> None:
    """Change one bit; what is read is still a valid file."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: flip(place / "input_ids.npy"),
        lambda place: (place / "labels.npy").write_bytes((place / "labels.npy").read_bytes()[:-4]),
        lambda place: (place / "starts.npy").unlink(),
        lambda place: (place / "about.json").unlink(),
        lambda place: (place / "about.json").write_text("[]"),
        lambda place: (place / "about.json").write_text('{"digests": {}}'),
    ],
    ids=["bit flipped", "truncated", "array gone", "index gone", "index a list", "index empty"],
)
def test_a_table_that_was_damaged_on_disk_is_made_again(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    cached(tmp_path, {"data": "a"}, table)
    (place,) = tmp_path.iterdir()
    damage(place)
    mended = cached(tmp_path, {"data": "a"}, table)
    for name in ("input_ids", "labels", "starts"):
        assert np.array_equal(getattr(mended, name), getattr(table(), name))
    assert list(tmp_path.iterdir()) == [place], "nothing of the damaged table is left"
    cached(tmp_path, {"data": "a"}, never)


def test_storage_that_gives_back_other_bytes_each_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_table, "digest", lambda path: os.urandom(8).hex())
    with pytest.raises(InfrastructureError, match=r"as it was written.*damaged 3 times"):
        cached(tmp_path, {"data": "a"}, table)


def _race(folder: Path, start: Any, done: Any) -> None:
    def slow() -> TokenTable:
        start.wait()  # everyone has looked, and found nothing
        return table()

    done.put(len(cached(folder, {"data": "a"}, slow)))


@pytest.mark.slow
def test_several_writers_leave_one_whole_table(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, done = context.Barrier(3), context.Queue()
    writers = [context.Process(target=_race, args=(tmp_path, start, done)) for _ in range(3)]
    for writer in writers:
        writer.start()
    assert [done.get(timeout=1200) for _ in writers] == [3, 3, 3]
    for writer in writers:
        writer.join()
    assert [path.name.startswith(".") for path in tmp_path.iterdir()] == [False]


def test_contents_change_with_a_file_but_not_with_weights(tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.json", tmp_path / "model"
    model.mkdir()
    rows.write_text("[]")
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_text("one")
    names = [str(rows), str(model), "tatsu-lab/alpaca"]
    before = contents(names)
    assert set(before) == {str(rows), str(model / "tokenizer.json")}
    (model / "model.safetensors").write_text("two")
    assert contents(names) == before
    rows.write_text("[1]")
    assert contents(names) != before


@pytest.mark.usefixtures("process_group")
def test_the_second_trial_on_the_same_rows_tokenises_nothing(
    trial: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    tokenise = corpus.tokenise

    def counted(*inputs: Any) -> TokenRows:
        made.append(1)
        return tokenise(*inputs)

    monkeypatch.setattr(corpus, "tokenise", counted)

    def losses(config: TrialConfig) -> list[float]:
        corpus._table.cache_clear()  # as in another process
        records: list[dict[str, Any]] = []
        train(config, records.append, caches=tmp_path / "tokens").release()
        return [record["loss"] for record in records[1:]]

    first = losses(trial(train__max_steps=2))
    again = losses(trial(train__max_steps=2, noise__type="symnoise", noise__alpha=0))
    assert made == [1]
    assert first == again
    config = trial(train__max_steps=2)
    file = Path(str(config.data.train))
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    assert losses(config) != first
    assert made == [1, 1]
