"""AlpacaEval's own annotators: what they send, what comes out, and nothing of it where it must not.

A server on the loopback answers with log-probabilities that depend on every letter of the prompt,
so that two sides which agree on all numbers have sent the same prompts.
"""

import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from symnoise_ray.cli.main import main
from symnoise_ray.config import JudgeConfig
from symnoise_ray.errors import DataError, JudgeError, UserError
from symnoise_ray.judges.alpaca_eval import CHUNK, HOPELESS, AlpacaEvalJudge, load_package
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import Judged, judge_all
from symnoise_ray.judges.logprobs import log_probability_preference
from symnoise_ray.judges.protocol import Pair, Usage, Verdict
from symnoise_ray.judges.self_check import GOOD, self_check
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
from tests.conftest import ROOT
from tests.servers.alpaca_eval import (
    ANNOTATOR,
    CANARY,
    annotating,
    answering,
    asked,
    by_letters,
)
from tests.servers.endpoint import Endpoint

# Not importorskip: the package's import needs what `load_package` does around it.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("alpaca_eval") is None, reason="the extra alpaca-eval is not installed"
)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with annotating(monkeypatch) as running:
        yield running


def settings(**more: Any) -> JudgeConfig:
    return JudgeConfig(**{"type": "alpaca_eval", "model": ANNOTATOR, **more})


def items(count: int) -> tuple[list[Completion], list[Completion]]:
    own = [Completion(f"Prompt {i}?", "x" * (i + 1), "trial") for i in range(count)]
    return own, [Completion(f"Prompt {i}?", "yy", "plain") for i in range(count)]


def judged(folder: Path, count: int = 4, **more: Any) -> Judged:
    config = settings(**more)
    return judge_all(make_judge(config, folder), *items(count), orders=config.orders)


# What is sent, and what comes out


def test_a_verdict_is_that_of_the_log_probabilities_in_our_order(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    result = judged(tmp_path, 1)
    prompts = [asked(body) for body in endpoint.requests]
    (last,) = [text for text in prompts if '"M",\n        "output": """x"""' in text]
    (first,) = [text for text in prompts if '"m",\n        "output": """x"""' in text]
    expected = [
        log_probability_preference(*by_letters(last).values()),
        log_probability_preference(*by_letters(first).values(), switched=True),
    ]
    assert [p.preference for p in result.preferences] == pytest.approx(expected, abs=1e-12)
    assert {p.annotator for p in result.preferences} == {ANNOTATOR}
    assert endpoint.keys == {f"Bearer {CANARY}"}
    assert endpoint.requests[0]["model"] == "gpt-4-1106-preview"


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Output of our command line, which must leave the terminal clean."""
    assert main([*arguments]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    return out


def upstream(own: list[Completion], reference: list[Completion]) -> dict[str, float]:
    """The row that AlpacaEval itself puts into its leaderboard."""
    names = ("dataset", "instruction", "output", "generator")
    board, _ = load_package().evaluate(
        [{name: getattr(row, name) for name in names} for row in own],
        [{name: getattr(row, name) for name in names} for row in reference],
        ANNOTATOR,
        fn_metric="get_winrate",
        sort_by="win_rate",
        output_path=None,
        precomputed_leaderboard=None,
        is_return_instead_of_print=True,
        caching_path=None,
    )
    return dict(board.iloc[0])


def test_published_orders_give_the_row_that_alpaca_eval_computes_itself(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Graded verdicts, a tie, a reply without a verdict, and an answer that is a placeholder."""
    monkeypatch.chdir(tmp_path)
    mute = "Prompt 7?"
    endpoint.RequestHandlerClass = answering(
        lambda prompt: {"Both": -0.1} if mute in prompt else by_letters(prompt)
    )
    own, other = items(24)
    own[3] = own[3]._replace(output=other[3].output)
    own[5] = own[5]._replace(output='\u00e9\u4e2d \U0001f600 {instruction}\n\n""" ')
    other[9] = other[9]._replace(output="{output_2} is better")
    write_lines(own, Path("own.jsonl"))
    write_lines(other, Path("reference.jsonl"))
    judge = ["judge.type=alpaca_eval", f"judge.model={ANNOTATOR}", "judge.orders=published"]
    files = ["own.jsonl", "--reference", "reference.jsonl", "--output", "out/preferences.jsonl"]
    answered = run(capfd, "judge", *files, *judge, "judge.self_check=false")
    assert answered.startswith("24 verdicts on 24 items in")
    assert "1 failed, 23 calls were made" in answered
    sent = [json.dumps(body, sort_keys=True) for body in endpoint.requests]
    ours = json.loads(run(capfd, "score", "out/preferences.jsonl", "--json"))
    endpoint.requests.clear()
    theirs = upstream(own, other)
    assert sorted(sent) == sorted(json.dumps(body, sort_keys=True) for body in endpoint.requests)
    assert len(sent) == 23
    for name, their_name, scale in (
        ("win_rate", "win_rate", 100),
        ("standard_error", "standard_error", 100),
        ("discrete_win_rate", "discrete_win_rate", 100),
        ("n_wins", "n_wins", 1),
        ("n_wins_reference", "n_wins_base", 1),
        ("n_draws", "n_draws", 1),
        ("n_total", "n_total", 1),
    ):
        assert scale * ours[name] == pytest.approx(theirs[their_name], abs=1e-9), name
    assert (ours["n_total"], ours["n_draws"], ours["n_invalid"]) == (23, 1, 1)
    assert int(ours["avg_length"]) == theirs["avg_length"]
    assert ours["position_bias"] is None


def test_a_ranking_annotator_is_read_by_its_own_parser(endpoint: Endpoint, tmp_path: Path) -> None:
    ranks = [{"model": "model_1", "rank": 2}, {"model": "model_2", "rank": 1}]
    endpoint.trouble = lambda number, body: f"say {ranks}"
    result = judged(tmp_path, 2, model="alpaca_eval_gpt4")
    assert [p.preference for p in result.preferences] == [2.0, 1.0, 2.0, 1.0]


# The store, and what a kill costs


def test_a_second_run_makes_no_call_and_a_failed_verdict_is_asked_again(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.RequestHandlerClass = answering(
        lambda prompt: {"Both": -0.1} if "Prompt 2?" in prompt else by_letters(prompt)
    )
    first = judged(tmp_path, 4)
    assert first.failures == {"AlpacaEval's parser found no preference in [1, 2]": 2}
    assert first.usage == Usage(calls=8)
    endpoint.RequestHandlerClass = answering(by_letters)
    assert judged(tmp_path, 4).usage == Usage(calls=2)
    assert judged(tmp_path, 4).usage == Usage(calls=0)
    assert len(endpoint.requests) == 10


def test_another_annotator_revision_or_endpoint_is_asked_anew(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged(tmp_path, 1)
    judged(tmp_path, 1, model="alpaca_eval_clf_gpt4_turbo")
    judged(tmp_path, 1, revision="2")
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url + "/")
    judged(tmp_path, 1)
    assert len(endpoint.requests) == 8


@pytest.mark.slow
def test_a_killed_process_loses_one_chunk_at_most(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.delay = 0.05
    own, other = items(4 * CHUNK)
    write_lines(own, tmp_path / "own.jsonl")
    write_lines(other, tmp_path / "reference.jsonl")
    command = ["judge", "own.jsonl", "--reference", "reference.jsonl", "--output", "p.jsonl"]
    command += ["judge.type=alpaca_eval", f"judge.model={ANNOTATOR}", "judge.self_check=false"]
    command += ["judge.orders=published"]
    python, environment = [sys.executable, "-m", "symnoise_ray"], {**os.environ, "PYTHONPATH": ROOT}
    killed = subprocess.Popen([*python, *command], cwd=tmp_path, env=environment)
    while len(endpoint.requests) < 2.5 * CHUNK:
        assert killed.poll() is None, "it ended before its time"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    begun = len(endpoint.requests)
    again = subprocess.run([*python, *command], cwd=tmp_path, env=environment, timeout=120)
    assert again.returncode == 0
    more = len(endpoint.requests) - begun
    assert 4 * CHUNK - begun <= more <= 4 * CHUNK - begun + CHUNK


# Failures


def test_one_bad_pair_does_not_cost_the_others_of_its_chunk_their_verdicts(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 400" if "Prompt 1?" in asked(body) else ""
    result = judged(tmp_path, 4)
    failed = [p.item for p in result.preferences if p.preference is None]
    assert failed == [1, 1]
    assert result.failures == {"AlpacaEval's annotator failed with status 400": 2}
    endpoint.trouble = lambda number, body: ""
    assert judged(tmp_path, 4).usage == Usage(calls=2), "only what failed is asked again"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("trouble", "status"), [("status 401", 401), ("status 404", 404), ("quota", 429)]
)
def test_what_no_call_can_pass_ends_all_calls(
    trouble: str, status: int, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: trouble
    result = judged(tmp_path, 2 * CHUNK)
    assert result.failures == {f"AlpacaEval's annotator failed with status {status}": 4 * CHUNK}
    assert len(endpoint.requests) <= 3 * CHUNK, "with the retries of the client"


def test_an_endpoint_that_fails_again_and_again_is_given_up(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "status 400"
    result = judged(tmp_path, 3 * CHUNK)
    assert [p.preference for p in result.preferences] == [None] * 6 * CHUNK
    assert len(endpoint.requests) <= HOPELESS + CHUNK
    endpoint.trouble = lambda number, body: ""
    assert judged(tmp_path, 1).coverage == 1, "nothing of it was kept"


@pytest.mark.parametrize(
    "trouble",
    [
        "absurd {}",
        "absurd []",
        'absurd {"choices": []}',
        "say m",
        "say ",
        'absurd {"choices": [{"message": {"role": "assistant", "content": null}}]}',
    ],
)
def test_a_reply_that_holds_no_log_probabilities_is_a_failed_verdict(
    trouble: str, endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: trouble
    result = judged(tmp_path, 1)
    assert [p.preference for p in result.preferences] == [None, None]
    assert sum(result.failures.values()) == 2


def test_a_text_without_an_encoding_fails_alone(endpoint: Endpoint, tmp_path: Path) -> None:
    pairs = [Pair("Prompt?", "a", "b"), Pair("Prompt?", "\ud800", "b"), Pair("Prompt?", "c", "b")]
    answered = dict(make_judge(settings(), tmp_path).judge(pairs))
    assert [answered[i].preference is None for i in range(3)] == [False, True, False]


# The key, the disk and the terminal

CALLER = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG)
from pathlib import Path
from symnoise_ray.config import JudgeConfig
from symnoise_ray.judges.choose import make_judge
from symnoise_ray.judges.judging import judge_all, require_coverage
from symnoise_ray.records.completions import Completion
from symnoise_ray.records.files import write_lines
for trouble in json.loads(sys.argv[2]):
    own = [Completion(f"fault: {trouble} .", "one", "trial")]
    other = [Completion(f"fault: {trouble} .", "other", "plain")]
    config = JudgeConfig(**json.loads(sys.argv[1]))
    judge = make_judge(config, Path("."), "s")
    judged = judge_all(judge, own, other, orders="published")
    write_lines(judged.preferences, Path(trouble + ".jsonl"))
    print(config, judge.identity, judged, sep="\\n")
    try:
        require_coverage(judged, 0.95)
    except Exception:
        logging.exception("as expected")
"""


def package_files() -> set[Path]:
    spec = importlib.util.find_spec("alpaca_eval")
    assert spec is not None
    assert spec.origin is not None
    return {path for path in Path(spec.origin).parent.rglob("*") if path.suffix != ".pyc"}


@pytest.mark.slow
def test_the_key_is_in_no_file_log_or_exception(endpoint: Endpoint, tmp_path: Path) -> None:
    """The server writes the key into its error messages, and every logger is at DEBUG."""
    faults = ["status 401", "status 429 0", "status 400", "cut", "truncated"]
    faults += ["say I refuse", "quota"]
    fault = re.compile(r"fault: (.*?) \.")
    endpoint.trouble = lambda number, body: fault.search(asked(body))[1]  # type: ignore[index]
    before = package_files()
    done = subprocess.run(
        [sys.executable, "-c", CALLER, settings().model_dump_json(), json.dumps(faults)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    assert done.stderr.count("JudgeError: INVALID") == len(faults)
    assert "DEBUG:" in done.stderr
    assert endpoint.keys == {f"Bearer {CANARY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > len(faults), "preferences of every fault, and the costs in the store"
    for text in [done.stdout, done.stderr, *(path.read_text() for path in files)]:
        assert not any(CANARY[i : i + 8] in text for i in range(3, len(CANARY) - 7))
    assert package_files() == before, "AlpacaEval's own store is off"


def test_nothing_of_this_process_is_changed_and_nothing_is_shown(
    endpoint: Endpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers), "pkg_resources" in sys.modules
    endpoint.trouble = lambda number, body: "say nothing" if number % 3 else ""
    judged(tmp_path, 20)
    assert (root.level, list(root.handlers), "pkg_resources" in sys.modules) == before
    assert capfd.readouterr() == ("", "")


# The self-check


def good_one(prompt: str) -> dict[str, float]:
    """For the answer that is one of the planted good ones."""
    first = re.findall(r'"output": """(.*?)"""', prompt, re.DOTALL)[0]
    return {"m": -0.1, "M": -3.0} if first in GOOD.values() else {"m": -3.0, "M": -0.1}


def test_the_self_check_passes_a_good_judge_and_refuses_one_of_positions(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.RequestHandlerClass = answering(good_one)
    self_check(settings(), tmp_path / "good")
    assert len(endpoint.requests) == 4 * len(GOOD)
    endpoint.RequestHandlerClass = answering(lambda prompt: {"m": -0.1, "M": -3.0})
    with pytest.raises(JudgeError, match=f"the judge {ANNOTATOR} must prefer the good answer"):
        self_check(settings(), tmp_path / "first")


# What is refused


def test_without_the_package_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "alpaca_eval", None)
    with pytest.raises(UserError, match=r"the extra alpaca-eval\): pip install alpaca_eval"):
        make_judge(settings(), tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"model": "weighted_alpaca_eval_gpt4_turb"},
            f"judge.model=.* must be the name .* Did you mean '{ANNOTATOR}'",
        ),
        ({"model": "zzz"}, "must be the name of .* Known here: .*alpaca_eval_gpt4"),
        ({"model": "alpaca_farm_greedy_gpt4"}, "one pair at a time, but asks about 5"),
        ({"model": "lmsys_gpt4", "orders": "published"}, "use judge.orders=both"),
    ],
)
def test_annotators_that_are_unknown_or_unlike_are_refused(
    more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        make_judge(settings(**more), tmp_path)


def test_an_annotator_without_a_published_order_is_asked_in_ours(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    endpoint.trouble = lambda number, body: "say 7 1"
    result = judged(tmp_path, 1, model="lmsys_gpt4")
    assert [p.preference for p in result.preferences] == [1.0, 2.0]


OWN = """
own:
  prompt_template: "mine/prompt.txt"
  fn_completions: "openai_completions"
  completions_kwargs: {{model_name: "{model}", max_tokens: 1, logprobs: true, top_logprobs: 5}}
  fn_completion_parser: "logprob_parser"
  completion_parser_kwargs:
    {{numerator_token: "m", denominator_tokens: ["m", "M"], is_binarize: false}}
  completion_key: "completions_all"
"""
TEMPLATE = "<|im_start|>user\nOf {instruction}: m {output_1} or M {output_2}?\n<|im_end|>"


def test_a_folder_of_ones_own_is_used_and_what_it_asks_is_its_identity(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "configs.yaml").write_text(OWN.format(model="gpt-4-mine"))
    with pytest.raises(UserError, match=r"mine/configs.yaml: must be .* FileNotFoundError"):
        AlpacaEvalJudge(settings(model=str(folder)))
    (folder / "prompt.txt").write_text("Which of {output_1} and {output_2}?")
    with pytest.raises(UserError, match=r"of own must hold \{instruction\}, .* but is 'Which"):
        AlpacaEvalJudge(settings(model=str(folder)))
    (folder / "prompt.txt").write_text(TEMPLATE)
    identities = [AlpacaEvalJudge(settings(model=str(folder))).identity]
    judge = AlpacaEvalJudge(settings(model=str(folder / "configs.yaml")))
    assert judge.identity == identities[0]
    ((_, verdict),) = judge.judge([Pair("A?", "a", "b")])
    assert isinstance(verdict, Verdict)
    assert verdict.preference is not None
    assert asked(endpoint.requests[0]) == "Of A?: m a or M b?"
    assert endpoint.requests[0]["model"] == "gpt-4-mine"
    (folder / "prompt.txt").write_text(TEMPLATE.replace("Of", "About"))
    identities.append(AlpacaEvalJudge(settings(model=str(folder))).identity)
    (folder / "configs.yaml").write_text(OWN.format(model="gpt-4-yours"))
    identities.append(AlpacaEvalJudge(settings(model=str(folder))).identity)
    assert len({str(identity) for identity in identities}) == 3
    (folder / "configs.yaml").write_text("own: {no_such: 1, prompt_template: x}")
    with pytest.raises(UserError, match=r"configs.yaml: must be an annotators' .* TypeError"):
        AlpacaEvalJudge(settings(model=str(folder)))


def test_conversations_are_refused(tmp_path: Path) -> None:
    pair = Pair("And then?", "a", "b", first_turns=(("Who?", "I"),))
    with pytest.raises(DataError, match="answers to single requests, but 'And then"):
        list(make_judge(settings(), tmp_path).judge([pair]))


def test_the_version_is_that_of_the_installed_package() -> None:
    assert AlpacaEvalJudge(settings()).identity["version"] == load_package().__version__
