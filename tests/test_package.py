"""The wheel is whole: installed far from the checkout, it has its data files and its command.

Nothing is downloaded: the build backend is among the tests' own packages, and the fresh
environment sees the packages of the one that runs the tests.
"""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOUND = """
from pathlib import Path
import symnoise_ray
from symnoise_ray.config.loading import shipped_spaces
from symnoise_ray.demo import content
from symnoise_ray.judges.prompt import SHIPPED

print(*shipped_spaces().values(), sep="\\n")
print(*SHIPPED.glob("*.yaml"), *content.model_dir().iterdir(), sep="\\n")
print(content.train_file(), content.eval_file(), content.confirm_file(), sep="\\n")
print(Path(symnoise_ray.__file__).with_name("py.typed"))
"""


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, in a folder that is not the checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as its build backend makes it of this checkout; the build says nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-W", "error", "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    done = run(*build, cwd=ROOT)
    (file,) = folder.iterdir()
    assert (done.stdout + done.stderr).split() == [str(file)]
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel, and sight of the dependencies."""
    folder = tmp_path_factory.mktemp("fresh") / "environment"
    venv.create(folder, symlinks=True, with_pip=False)
    fresh = folder / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", f"--python={fresh}", "install", *options, wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return fresh


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(ROOT)
        for path in (ROOT / "symnoise_ray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    spaces = {
        "symnoise_ray" / path.relative_to(ROOT)
        for path in (ROOT / "search_spaces").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(spaces) > 20
    assert held == package | spaces


def test_the_installed_package_finds_its_files(python: Path, tmp_path: Path) -> None:
    told = run(python, "-c", FOUND, cwd=tmp_path).stdout.splitlines()
    assert len(told) > 10
    assert {Path(line).suffix for line in told} >= {".yaml", ".jsonl", ".safetensors", ".typed"}
    for line in told:
        assert Path(line).is_relative_to(python.parent.parent), "not from the checkout"
        assert Path(line).is_file()


def test_the_command_answers_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    told = run(python.parent / "symnoise-ray", "validate", "quickstart", cwd=tmp_path)
    assert "3 baselines" in told.stdout
    assert told.stderr == ""
    assert list(tmp_path.iterdir()) == []
