"""The judge: who says which of two answers is better, and how it is asked."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple, Self, get_args

from pydantic import Field, model_validator

from symnoise_ray.config.section import Section

ENVIRONMENT_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
JudgeType = Literal["reference", "api", "local", "alpaca_eval"]


class For(NamedTuple):
    """A mark in a setting's annotation: the judges that the setting has a meaning for."""

    types: tuple[JudgeType, ...]


MODEL = For(("api", "local", "alpaca_eval"))
PROMPT = For(("api", "local"))
ENDPOINT = For(("api",))
OWN = For(("local",))
"""A setting that no mark stands at is for every judge."""


def judge_types(name: str) -> tuple[str, ...]:
    """Judges that a setting of `JudgeConfig` has a meaning for."""
    marks = [mark for mark in JudgeConfig.model_fields[name].metadata if isinstance(mark, For)]
    return marks[0].types if marks else get_args(JudgeType)


class JudgeConfig(Section):
    """Who says which of two answers is better, and against what."""

    type: JudgeType = "reference"
    """`reference`: the answer nearer to the gold answer wins; deterministic and offline. `api`: a
    model behind an OpenAI-compatible endpoint. `local`: a Hugging Face model of your own, in
    a sweep on Ray workers that all trials share. `alpaca_eval`: an annotator of AlpacaEval's
    package (the extra `alpaca-eval`), with its own prompt, parser and keys."""
    reference: str = Field("baseline", min_length=1)
    """`baseline` (the plain fine-tuned trial of this sweep) or a file of AlpacaEval model
    outputs."""
    model: Annotated[str | None, MODEL] = None
    """The judging model: its name at the endpoint (`api`), a Hugging Face name or folder
    (`local`), or the name or folder of an annotators' configuration (`alpaca_eval`)."""
    revision: Annotated[str | None, MODEL] = None
    """Branch, tag or commit of a hub model (`local`), or your own name for what the endpoint serves
    (`api`, `alpaca_eval`); stored verdicts of another revision are not used."""
    orders: Literal["both", "published"] = "both"
    """`both`: every item is judged in both orders of the two answers. `published`: in one, which
    AlpacaEval draws from the instruction, as in its published numbers; a preference of the judge
    for a position is then neither seen nor averaged out."""
    engine: Annotated[Literal["transformers", "vllm"], OWN] = "transformers"
    """What runs a local judge: plain transformers, or vLLM (the extra `vllm`, on CUDA)."""
    num_workers: Annotated[int, OWN] = Field(1, ge=1)
    """Copies of a local judge in a sweep, each on a Ray worker of its own."""
    cpus_per_worker: Annotated[int, OWN] = Field(1, ge=1)
    """CPU cores of such a worker; also its number of compute threads."""
    gpus_per_worker: Annotated[float, OWN] = Field(0.0, ge=0, allow_inf_nan=False)
    """GPUs of such a worker: a fraction shares one with others, several (vLLM only) hold one model
    together; 0 judges on the CPU."""
    dtype: Annotated[Literal["fp32", "bf16"], OWN] = "fp32"
    """Type of a local judge's weights."""
    batch_size: Annotated[int, OWN] = Field(16, ge=1)
    """Items that a local judge in transformers reads together, each in both orders."""
    max_length: Annotated[int, OWN] = Field(4096, ge=64)
    """Largest number of tokens in a local judge's prompt; a longer one is a failed verdict."""
    prompt: Annotated[str, PROMPT] = "pairwise"
    """What the judge is asked: `pairwise`, or a YAML file with `system`, `user` and `labels`, where
    `{instruction}`, `{first}` and `{second}` stand for JSON strings."""
    verdict: Annotated[Literal["auto", "logprobs", "text"], ENDPOINT] = "auto"
    """How an endpoint's verdict is read: from the log-probabilities of the two labels, from the
    text, or `auto`: the former where the endpoint gives them."""
    temperature: Annotated[float | None, ENDPOINT] = Field(0.0, ge=0, le=2)
    """Sampling temperature at the endpoint; null asks for none, which some models want."""
    max_new_tokens: Annotated[int, ENDPOINT] = Field(8, ge=1)
    """Largest number of tokens in the endpoint's answer; models that think first need thousands."""
    base_url: Annotated[str, ENDPOINT] = "https://api.openai.com/v1"
    """The endpoint."""
    api_key_env: Annotated[str | None, ENDPOINT] = None
    """NAME of the environment variable that holds the key; the key itself never stands here."""
    api_key_file: Annotated[str | None, ENDPOINT] = None
    """File that holds the key, instead of a variable; an endpoint without keys needs neither."""
    concurrency: Annotated[int, ENDPOINT] = Field(8, ge=1, le=256)
    """Calls to the endpoint that run at once, per trial that is being judged."""
    requests_per_minute: Annotated[float | None, ENDPOINT] = Field(None, gt=0, allow_inf_nan=False)
    """Largest number of calls per minute, per trial that is being judged."""
    tokens_per_minute: Annotated[float | None, ENDPOINT] = Field(None, gt=0, allow_inf_nan=False)
    """Largest number of tokens per minute, in and out, per trial that is being judged."""
    timeout_seconds: Annotated[float, ENDPOINT] = Field(60.0, gt=0, allow_inf_nan=False)
    """Seconds until the whole answer to a call must have arrived."""
    max_retries: Annotated[int, ENDPOINT] = Field(5, ge=0)
    """How often a call is repeated that failed or gave no verdict."""
    retry_seconds: Annotated[float, ENDPOINT] = Field(1.0, gt=0, allow_inf_nan=False)
    """First wait before a retry, doubled each time and changed at random by up to half; an
    endpoint's Retry-After takes precedence."""
    max_wait_seconds: Annotated[float, ENDPOINT] = Field(120.0, gt=0, allow_inf_nan=False)
    """Longest wait before a retry; a call fails if its endpoint asks for a longer one."""
    max_calls: Annotated[int | None, ENDPOINT] = Field(None, ge=1)
    """Budget of the sweep in calls, retries included."""
    max_total_tokens: Annotated[int | None, ENDPOINT] = Field(None, ge=1)
    """Budget of the sweep in tokens, in and out."""
    max_cost: Annotated[float | None, ENDPOINT] = Field(None, gt=0, allow_inf_nan=False)
    """Budget of the sweep in money, in the currency of the two prices."""
    price_input: Annotated[float, ENDPOINT] = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of a million tokens read by the endpoint."""
    price_output: Annotated[float, ENDPOINT] = Field(0.0, ge=0, allow_inf_nan=False)
    """Price of a million tokens written by the endpoint."""
    min_coverage: float = Field(0.95, gt=0, le=1)
    """Fraction of the items that must have all their verdicts, or else the trial is invalid."""
    cache: str = "verdicts"
    """Folder of stored verdicts, which are not asked for again; a relative path starts at the
    folder of the sweep directories."""
    self_check: bool = True
    """Try the judge on planted pairs before the first trial; one that fails ends the sweep."""
    early: bool = False
    """Judge a searched trial's prompts in a random order and stop once it is decided, with 5 %
    error, on which side of 50 % the win rate of all prompts lies; the confirmation judges all."""

    @model_validator(mode="after")
    def _keys_belong_to_the_type(self) -> Self:
        for name, field in type(self).model_fields.items():
            owners = judge_types(name)
            if self.type not in owners and getattr(self, name) != field.default:
                raise ValueError(
                    f"judge.{name} belongs to judge.type={' or '.join(owners)}, but got "
                    f"judge.type={self.type}"
                )
        if self.type != "reference" and not self.model:
            raise ValueError(f"judge.model must be given for judge.type={self.type}")
        return self

    @model_validator(mode="after")
    def _gpus_suit_the_engine(self) -> Self:
        gpus = self.gpus_per_worker
        if self.engine == "vllm" and not gpus:
            raise ValueError("judge.engine=vllm needs judge.gpus_per_worker > 0, but got 0")
        if gpus > 1 and (self.engine != "vllm" or gpus != int(gpus)):
            raise ValueError(
                "judge.gpus_per_worker must be 0, a part of one GPU, 1, or with judge.engine=vllm "
                f"a whole number of GPUs, but got {gpus:g}"
            )
        return self

    @model_validator(mode="after")
    def _the_key_is_not_here(self) -> Self:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("judge.api_key_env and judge.api_key_file exclude each other")
        if self.api_key_env is not None and not ENVIRONMENT_NAME.fullmatch(self.api_key_env):
            # The value is not shown: it may be the key.
            raise ValueError(
                "judge.api_key_env must be the NAME of an environment variable, such as "
                "OPENAI_API_KEY, never the key itself"
            )
        plain = self.base_url.startswith(("http://", "https://"))
        if not plain or any(sign in self.base_url for sign in "@?#"):
            # The value is not shown: it may hold a key.
            raise ValueError(
                "judge.base_url must be http(s)://host/path without user, password or query"
            )
        if self.max_cost is not None and not self.price_input + self.price_output:
            raise ValueError("judge.max_cost needs judge.price_input and judge.price_output")
        return self


def needs_gold(judge: JudgeConfig) -> bool:
    """Whether a judge needs the gold answer of every prompt."""
    return judge.type == "reference"
