"""No code of others runs by itself: a model's own code needs a flag and a commit, and no pickle."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from pathlib import Path
from transformers import LlamaForCausalLM
from .configuration import OwnConfig
Path({mark!r}).touch()
class Own(LlamaForCausalLM):
    config_class = OwnConfig
"""
LOAD = """
import json, sys
from symnoise_ray.config import ModelConfig
from symnoise_ray.errors import UserError
from symnoise_ray.models.weights import load
try:
    print(type(load(ModelConfig(**json.loads(sys.argv[1]))).model).__name__)
except UserError as error:
    print("refused:", error.message)
"""


def loaded(cache: Path, **config: Any) -> str:
    """Name of the class of a model that a process of its own loads, or why it does not."""
    # Where nobody can be asked whether to trust the code, the answer must be no.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(config)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.strip().splitlines()[-1]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once code of others has run."""
    return tmp_path / "it ran"


def own_model(folder: Path, origin: Path, code: str) -> Path:
    """A copy of a model whose configuration names a class of its own."""
    shutil.copytree(origin, folder)
    settings = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "configuration.OwnConfig", "AutoModelForCausalLM": "modeling.Own"}
    settings |= {
        "model_type": "own",
        "auto_map": {name: f"{code}{place}" for name, place in classes.items()},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def write_code(folder: Path, mark: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "modeling.py").write_text(CODE.format(mark=str(mark)))
    (folder / "configuration.py").write_text(
        "from transformers import LlamaConfig\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )


@pytest.mark.slow
def test_code_of_a_model_runs_only_where_it_is_asked_for(
    tmp_path: Path, tiny_model_dir: Path, mark: Path
) -> None:
    model = own_model(tmp_path / "model", tiny_model_dir, "")
    write_code(model, mark)
    assert loaded(tmp_path, name=str(model)).startswith("refused: model.name=")
    assert not mark.exists()
    trusted = {"trust_remote_code": True, "revision": COMMIT}
    assert loaded(tmp_path, name=str(model), **trusted) == "Own"
    assert mark.exists()


@pytest.mark.slow
def test_code_of_another_repository_is_that_of_the_commit_too(
    tmp_path: Path, tiny_model_dir: Path, mark: Path
) -> None:
    model = own_model(tmp_path / "model", tiny_model_dir, "others/code--")
    held = tmp_path / "hub" / "models--others--code"
    moved, pinned = "f" * 40, COMMIT
    write_code(held / "snapshots" / moved, mark)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(moved)
    trusted = {"name": str(model), "trust_remote_code": True, "revision": pinned}
    assert loaded(tmp_path, **trusted).startswith("refused: model.name=")
    assert not mark.exists(), "the branch may be moved to any code"
    write_code(held / "snapshots" / pinned, mark)
    assert loaded(tmp_path, **trusted) == "Own"


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "adapter"])
def test_a_pickle_among_a_models_files_is_never_opened(
    kind: str, tmp_path: Path, tiny_model_dir: Path, mark: Path
) -> None:
    folder = shutil.copytree(tiny_model_dir, tmp_path / "model")
    if kind == "weights":
        (folder / "model.safetensors").unlink()
    else:
        settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_model_dir)}
        settings |= {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"], "r": 2}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = {"weights": "pytorch_model.bin", "adapter": "adapter_model.bin"}[kind]
    (folder / name).write_bytes(pickle.dumps(Touch(mark)))
    assert loaded(tmp_path, name=str(folder)).startswith("refused: model.name=")
    assert not mark.exists()
    pickle.loads((folder / name).read_bytes())
    assert mark.exists(), "it would have run"
