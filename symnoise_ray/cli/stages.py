"""The verbs that run one stage of a trial alone, in this process."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symnoise_ray.cli.verbs import Verbs, add_overrides, add_verb
from symnoise_ray.errors import EXIT_OK, DataError, UserError

if TYPE_CHECKING:
    from symnoise_ray.config import JudgeConfig
    from symnoise_ray.records.completions import Completion


def add_inspect(verbs: Verbs) -> None:
    """Add `inspect`."""
    parser = add_verb(
        verbs,
        "inspect",
        "Show training rows as the model sees them, and what is left out.",
        "symnoise-ray inspect data.train=alpaca.json --rows 5",
        _run_inspect,
        prints_last=True,
    )
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a trial's YAML or config.json, or a space"
    )
    add_overrides(parser)
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="rows shown (default: 3)")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def _run_inspect(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preflight.preview import as_text, preview, rows_to_show

    source, overrides = arguments.config, list(arguments.overrides)
    if source is not None and "=" in source:
        source, overrides = None, [source, *overrides]
    if arguments.rows < 0:
        raise UserError(f"--rows must be 0 or more, but got {arguments.rows}")
    shown = preview(rows_to_show(source, overrides), arguments.rows)
    if arguments.json:
        print(json.dumps(shown.to_json(), indent=2))
    else:
        print(as_text(shown, colour=sys.stdout.isatty()))
    return EXIT_OK


def add_train(verbs: Verbs) -> None:
    """Add `train`."""
    parser = add_verb(
        verbs,
        "train",
        "Fine-tune one model in this process and keep it.",
        "symnoise-ray train trial.yaml noise.type=symnoise noise.alpha=5 --output out",
        _run_train,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a trial's YAML or config.json")
    add_overrides(parser)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="gets model/, config.json and metrics.jsonl; training that was cut off goes on there",
    )


def _run_train(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preflight.inputs import check_inputs
    from symnoise_ray.records.files import require_folder, write_json
    from symnoise_ray.records.layout import CONFIG, MODEL, TOKENS
    from symnoise_ray.space.paths import read_trial

    config = read_trial(arguments.config, arguments.overrides)
    directory: Path = arguments.output
    _require_other(directory / MODEL, [config.model.name])
    if (directory / MODEL).exists():
        raise UserError(
            f"--output {directory}: must not hold a trained model yet, but {directory / MODEL} is "
            "there; name another folder, or move the model away"
        )
    _tell(check_inputs([config], judged=False))
    require_folder(directory, "--output")
    from symnoise_ray.workers.task import export_in, remove_checkpoints, train_in

    write_json(config.model_dump(mode="json"), directory / CONFIG)

    def report(record: dict[str, float]) -> None:
        print(json.dumps(record))

    trained = train_in(directory, config, report, caches=directory / f".{TOKENS}")
    export_in(directory, config, trained)
    remove_checkpoints(directory)
    for what, number in trained.counts.items():
        print(f"{number} {what}", file=sys.stderr)
    return EXIT_OK


def add_generate(verbs: Verbs) -> None:
    """Add `generate`."""
    parser = add_verb(
        verbs,
        "generate",
        "Answer a trial's prompts with a model.",
        "symnoise-ray generate out/config.json --model out/model --output answers.jsonl",
        _run_generate,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a trial's YAML or config.json")
    add_overrides(parser)
    parser.add_argument("--model", metavar="DIR", help="the model; the trial's own by default")
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the answers, one JSON object a line; a file that is there is replaced",
    )


def _run_generate(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preflight.inputs import check_inputs
    from symnoise_ray.records.files import require_writable, write_lines
    from symnoise_ray.space.paths import read_trial

    config = read_trial(arguments.config, arguments.overrides)
    _require_other(arguments.output, [arguments.config, *_texts(config.model_dump())])
    model = config.model
    if arguments.model:
        model = model.model_copy(update={"name": arguments.model})
    _tell(check_inputs([config.model_copy(update={"model": model})], judged=False))
    require_writable(arguments.output, "--output")
    from symnoise_ray.generation.answering import answer_from_disk

    generator = arguments.output.stem
    completions, counts = answer_from_disk(config, model, generator=generator, gold=False)
    write_lines(completions, arguments.output)
    for what, number in counts.items():
        print(f"{number} {what}", file=sys.stderr)
    print(f"{len(completions)} answers in {arguments.output}")
    return EXIT_OK


def _tell(notes: Iterable[str]) -> None:
    """Show what is no mistake, away from a command's own output."""
    for note in notes:
        print(note, file=sys.stderr)


def _texts(value: Any) -> Iterator[str]:
    """All texts in some settings: any of them may name a file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _require_other(output: Path, read: Iterable[str | Path]) -> None:
    """Refuse an output that would take the place of what is read."""
    target = output.resolve()
    for each in read:
        if target.exists() and Path(each).resolve() == target:
            raise UserError(f"--output must not overwrite what is read, but {output} is {each}")


def add_judge(verbs: Verbs) -> None:
    """Add `judge`."""
    parser = add_verb(
        verbs,
        "judge",
        "Judge answers against a reference's, in both orders or AlpacaEval's.",
        "symnoise-ray judge answers.jsonl --reference baseline.jsonl --output preferences.jsonl",
        _run_judge,
    )
    parser.add_argument(
        "completions",
        type=Path,
        metavar="FILE",
        help="the answers to judge: of `generate`, or AlpacaEval's model outputs",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the judge, such as judge.type=api"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        required=True,
        metavar="FILE",
        help="the answers to compare with, to the same prompts",
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the verdicts, which `score` reads; a file that is there is replaced",
    )


def _run_judge(arguments: argparse.Namespace) -> int:
    from symnoise_ray.config.redaction import redacted
    from symnoise_ray.judges.choose import make_judge
    from symnoise_ray.judges.judging import judge_all, require_coverage
    from symnoise_ray.judges.self_check import self_check
    from symnoise_ray.records.completions import read_completions
    from symnoise_ray.records.files import require_folder, require_writable, write_lines
    from symnoise_ray.space.paths import read_judge
    from symnoise_ray.statistics.judged_models import stopped_early

    config = read_judge(arguments.overrides)
    shown = redacted(str(arguments.completions))
    if shown != str(arguments.completions):
        raise UserError(f"the first word must name the answers to judge, but got {shown}")
    _require_other(arguments.output, [arguments.completions, arguments.reference])
    completions = _judgeable(read_completions(arguments.completions), config)
    reference = read_completions(arguments.reference)
    place, scope = arguments.output.parent, str(arguments.output.absolute())
    require_writable(arguments.output, "--output")
    if config.type != "reference":
        require_folder(place / config.cache, "judge.cache")
    self_check(config, place, scope)
    judged = judge_all(
        make_judge(config, place, scope),
        completions,
        reference,
        early=config.early,
        min_coverage=config.min_coverage,
        orders=config.orders,
    )
    write_lines(judged.preferences, arguments.output)
    print(
        f"{len(judged.preferences)} verdicts on {judged.num_items} items in {arguments.output}; "
        f"{sum(judged.failures.values())} failed, {judged.usage.calls} calls were made"
    )
    if stopped := stopped_early(judged.preferences):
        low, high = judged.early_fields()["interval_95"]
        print(
            f"{stopped}; with 95 % probability the win rate of all items lies within "
            f"{100 * low:.1f} to {100 * high:.1f} %"
        )
    require_coverage(judged, config.min_coverage)
    return EXIT_OK


def _judgeable(completions: list[Completion], judge: JudgeConfig) -> list[Completion]:
    """The answers that a judge can judge; those that it cannot are told on the standard error.

    Raises:
        DataError: it can judge none.
    """
    from symnoise_ray.config.judge import needs_gold
    from symnoise_ray.data.rows import NO_GOLD

    if not needs_gold(judge):
        return completions
    known = [completion for completion in completions if completion.gold.strip()]
    if completions and not known:
        raise DataError(
            f"judge.type={judge.type} needs prompts with gold answers, but none of "
            f"{len(completions)} has one; choose a judge that needs none, such as judge.type=api"
        )
    if len(known) < len(completions):
        print(f"{len(completions) - len(known)} {NO_GOLD}", file=sys.stderr)
    return known
