"""`symnoise-ray report`: a sweep's report again, and one page of several sweeps."""

from pathlib import Path

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.records.files import write_json
from tests.report.made import content


@pytest.fixture
def sweeps(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "runs" / name for name in ("one", "two")]
    for folder in folders:
        write_json(content(name=folder.name), folder / "results.json")
    return folders


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_sweep_gets_its_page_and_its_markdown(
    sweeps: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(sweeps[0])]) == 0
    assert capsys.readouterr().out == f"{sweeps[0] / 'report.html'}\n"
    assert _files(sweeps[0]) == {"results.json", "report.html", "report.md"}


@pytest.mark.parametrize("given", [None, "pages/both.html"])
def test_several_sweeps_get_one_page(
    sweeps: list[Path], tmp_path: Path, given: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = tmp_path / given if given else tmp_path / "runs" / "report.html"
    words = ["report", *map(str, sweeps)]
    assert main(words + (["--output", str(expected)] if given else [])) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    text = expected.read_text(encoding="utf-8")
    assert "<title>one, two: sweep report</title>" in text
    assert text.count('<article class="sweep"') == 2
    assert all(_files(folder) == {"results.json"} for folder in sweeps)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one", "two", "one"], "every sweep must be given once"),
        (["one", "--output", "page.html"], "must be given with several sweeps"),
        (["one", "absent"], "must be the directory of a sweep"),
        (["one", "two", "--output", "two"], "must be a file that can be written"),
    ],
)
def test_bad_input_is_one_line_and_creates_nothing(
    words: list[str],
    told: str,
    sweeps: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = sweeps[0].parent
    monkeypatch.chdir(folder)
    before = _files(folder)
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1
    assert _files(folder) == before
