"""The endpoint judge against a server we did not write: the one that transformers brings."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all
from symnoise_ray.judges.local import local_judge
from symnoise_ray.records.completions import Completion
from tests.judges.test_local import SIZES, chat_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA that can say nothing but A or B; which one, its random layers decide."""
    place = tmp_path_factory.mktemp("judge")
    tokenizer = chat_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES))
    direction = torch.randn(SIZES["hidden_size"])
    with torch.no_grad():
        model.lm_head.weight.zero_()
        for label, sign in (("A", 1), ("B", -1)):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(label)] = sign * direction
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Base URL of `transformers serve` with that model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen(
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_up(health: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server did not come up")


def test_verdicts_by_text_are_those_of_the_same_model_read_locally(
    folder: Path, url: str, tmp_path: Path
) -> None:
    own = [Completion(f"Question {i}?", "fox " * i, "trial") for i in range(8)]
    other = [Completion(row.instruction, "the blue bird", "plain") for row in own]
    api = JudgeConfig(type="api", model=str(folder), base_url=url, max_new_tokens=1, concurrency=2)
    result = judge_all(make_judge(api, tmp_path), own, other)
    assert result.failures == {}
    assert result.usage.input_tokens > 1000
    local = judge_all(local_judge(JudgeConfig(type="local", model=str(folder))), own, other)
    said = [p.preference for p in result.preferences]
    assert set(said) == {1.0, 2.0}
    assert said == [round(p.preference or 0) for p in local.preferences]
    again = judge_all(make_judge(api, tmp_path), own, other)
    assert again.preferences == result.preferences
    assert again.usage.calls == 0
