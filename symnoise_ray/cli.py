"""`symnoise-ray VERB`: the whole sweep, and every stage alone.

Imports are lazy, so that `--help`, `validate` and `score` answer at once. An error is one line on
stderr and an exit status: 1 failed, 2 the user's input, 3 some trials failed, 130 and 143
interrupted. `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from symnoise_ray import __version__
from symnoise_ray.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_SIGINT,
    SymnoiseError,
    UserError,
    reason_of,
)

if TYPE_CHECKING:
    from symnoise_ray.config import JudgeConfig

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    status = _run(argv)
    if session := sys.modules.get("symnoise_ray.session"):
        session.leave(status)
    return status


def _run(argv: Sequence[str] | None) -> int:
    debug = "--debug" in (sys.argv if argv is None else argv)
    try:
        arguments = _arguments(argv)
        warnings.filterwarnings("default" if debug else "ignore")
        status: int = arguments.run(arguments)
        return status
    except KeyboardInterrupt as interrupt:
        code = getattr(interrupt, "exit_code", EXIT_SIGINT)
        print("interrupted; what was done is kept", file=sys.stderr)
        return code
    except SymnoiseError as error:
        if debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if debug:
            raise
        print(f"error: {reason_of(error)} (--debug shows where)", file=sys.stderr)
        return EXIT_FAILED


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command; overrides may stand on either side of an option."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    late = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(late) < len(rest) or (late and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        arguments.overrides = [*arguments.overrides, *late]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="symnoise-ray",
        description="Fine-tune with embedding noise, and find out honestly whether it helps.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    stages = (_tune, _train, _generate, _judge, _score, _report)
    for add in (*stages, _validate, _plan, _inspect, _schema, _sync):
        add(verbs)
    return parser


def _verb(
    verbs: Verbs,
    name: str,
    summary: str,
    example: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks and warnings")
    parser.set_defaults(run=run)
    return parser


def _tune(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "tune",
        "Run a sweep, from search space to verdict.",
        "symnoise-ray tune quickstart train.num_epochs=1 --output runs/short",
        _run_tune,
    )
    _add_space(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="new or empty directory (runs/NAME by default)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, start and create nothing"
    )


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "space",
        nargs="?",
        default="quickstart",
        metavar="SPACE",
        help="a YAML file or the name of a shipped space (default: quickstart)",
    )
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, such as optim.schedule=linear"
    )


def _split_space(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    """A first word with `=` is an override, so the space may be left out."""
    space, overrides = arguments.space, list(arguments.overrides)
    return ("quickstart", [space, *overrides]) if "=" in space else (space, overrides)


def _run_tune(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _run_validate(arguments)
    from symnoise_ray.live import make_console
    from symnoise_ray.sweep import run_sweep

    space, overrides = _split_space(arguments)
    return run_sweep(space, overrides, arguments.output, make_console())


def _train(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "train",
        "Fine-tune one model in this process and keep it.",
        "symnoise-ray train trial.yaml noise.type=symnoise noise.alpha=5 --output out",
        _run_train,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a trial's YAML or config.json")
    _add_overrides(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")


def _run_train(arguments: argparse.Namespace) -> int:
    from symnoise_ray.inputs import check_inputs
    from symnoise_ray.loading import load_trial
    from symnoise_ray.records import Metrics, write_json

    config = load_trial(arguments.config, arguments.overrides)
    check_inputs([config])
    from symnoise_ray.model import export
    from symnoise_ray.train import train

    directory: Path = arguments.output
    directory.mkdir(parents=True, exist_ok=True)
    write_json(config.model_dump(mode="json"), directory / "config.json")
    checkpoints = directory / "checkpoints"
    with Metrics(directory / "metrics.jsonl") as metrics:

        def report(record: dict[str, float]) -> None:
            metrics.write(record)
            print(json.dumps(record))

        trained = train(config, report, caches=directory / ".tokens", checkpoints=checkpoints)
    export(trained.model, trained.tokenizer, directory / "model", merge=config.lora.merge)
    shutil.rmtree(checkpoints, ignore_errors=True)
    for what, number in trained.counts.items():
        print(f"{number} {what}", file=sys.stderr)
    return EXIT_OK


def _generate(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "generate",
        "Answer a trial's prompts with a model.",
        "symnoise-ray generate out/config.json --model out/model --output answers.jsonl",
        _run_generate,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a trial's YAML or config.json")
    _add_overrides(parser)
    parser.add_argument("--model", metavar="DIR", help="the model; the trial's own by default")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")


def _run_generate(arguments: argparse.Namespace) -> int:
    from symnoise_ray.inputs import check_inputs
    from symnoise_ray.loading import load_trial
    from symnoise_ray.records import write_lines

    config = load_trial(arguments.config, arguments.overrides)
    check_inputs([config])
    from symnoise_ray.generate import answer_alone

    model = config.model
    if arguments.model:
        model = model.model_copy(update={"name": arguments.model})
    completions, counts = answer_alone(config, model, generator=arguments.output.stem)
    write_lines(completions, arguments.output)
    for what, number in counts.items():
        print(f"{number} {what}", file=sys.stderr)
    print(f"{len(completions)} answers in {arguments.output}")
    return EXIT_OK


def _judge(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "judge",
        "Judge answers against a reference's, in both orders.",
        "symnoise-ray judge answers.jsonl --reference baseline.jsonl --output preferences.jsonl",
        _run_judge,
    )
    parser.add_argument("completions", type=Path, metavar="FILE")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the judge, such as judge.type=api"
    )
    parser.add_argument("--reference", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")


def _run_judge(arguments: argparse.Namespace) -> int:
    from symnoise_ray.judges import judge_all, make_judge, require_coverage
    from symnoise_ray.judges.check import self_check
    from symnoise_ray.records import read_completions, write_lines

    config = _judge_settings(arguments.overrides)
    completions = read_completions(arguments.completions)
    reference = read_completions(arguments.reference)
    place, scope = arguments.output.parent, str(arguments.output.absolute())
    self_check(config, place, scope)
    judged = judge_all(
        make_judge(config, place, scope),
        completions,
        reference,
        early=config.early,
        min_coverage=config.min_coverage,
    )
    write_lines(judged.preferences, arguments.output)
    print(
        f"{len(judged.preferences)} verdicts on {judged.num_items} items in {arguments.output}; "
        f"{sum(judged.failures.values())} failed, {judged.usage.calls} calls were made"
    )
    require_coverage(judged, config.min_coverage)
    return EXIT_OK


def _judge_settings(overrides: Sequence[str]) -> JudgeConfig:
    from symnoise_ray.config import TrialConfig
    from symnoise_ray.loading import Document, build, parse_override, put

    document = Document({}, {}, "key=value")
    for text in overrides:
        key, value = parse_override(text)
        if key[0] != "judge":
            raise UserError(f"override {text}: only judge.* has a meaning for this verb")
        put(document.values, key, value)
        document.places[key] = f"override {'.'.join(key)}"  # a value may be a key by mistake
    return build(TrialConfig, document).judge


def _score(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "score",
        "Win rates with their intervals, from preferences.jsonl or AlpacaEval's annotations.json.",
        "symnoise-ray score preferences.jsonl --json",
        _run_score,
    )
    parser.add_argument("preferences", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="rates as fractions, as JSON")
    parser.add_argument(
        "--gamed",
        type=Path,
        metavar="CSV",
        help="AlpacaEval's df_gamed.csv, to control the length as AlpacaEval does on its 805 items",
    )
    parser.add_argument(
        "--strength", type=float, metavar="C", help="AlpacaEval's C, with --gamed (default: 21.54)"
    )


def _run_score(arguments: argparse.Namespace) -> int:
    from symnoise_ray.annotations import read_annotations, read_gamed
    from symnoise_ray.length_control import STRENGTH
    from symnoise_ray.score import AlpacaEvalModel, in_words, win_rate

    known = None
    strength = STRENGTH if arguments.strength is None else arguments.strength
    if not 0 < strength < float("inf"):
        raise UserError(f"--strength must be a positive number, but is {strength}")
    if arguments.gamed is not None:
        known = AlpacaEvalModel(*read_gamed(arguments.gamed), strength)
    elif arguments.strength is not None:
        raise UserError("--strength is AlpacaEval's C and needs --gamed, which was not given")
    score = win_rate(read_annotations(arguments.preferences), known)
    print(json.dumps(score.to_json(), indent=2) if arguments.json else in_words(score))
    return EXIT_OK


def _report(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "report",
        "Write a sweep's report again from its files.",
        "symnoise-ray report runs/quickstart",
        _run_report,
    )
    parser.add_argument("directory", type=Path, metavar="DIR")


def _run_report(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records import read_json
    from symnoise_ray.report import write_report

    write_report(arguments.directory, read_json(arguments.directory / "results.json"))
    print(arguments.directory / "report.html")
    return EXIT_OK


def _validate(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "validate",
        "Check a search space, its data and its model; start nothing.",
        "symnoise-ray validate my_space.yaml model.name=./model",
        _run_validate,
    )
    _add_space(parser)


def _run_validate(arguments: argparse.Namespace) -> int:
    from symnoise_ray.plans import SweepPlans, first_point, prepare, size_text

    space, overrides = _split_space(arguments)
    config = prepare(space, overrides)
    judge = SweepPlans(config, Path()).config(first_point(config)).judge
    if judge.type != "reference":
        from symnoise_ray.judges.check import check_settings

        check_settings(judge)
    print(f"{config.name}: {size_text(config)}; all settings, files and the model are usable")
    return EXIT_OK


def _plan(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "plan",
        "Forecast steps, memory, disk and judge calls; start nothing, load no weights.",
        "symnoise-ray plan quickstart model.name=./model --gpu-memory 80",
        _run_plan,
    )
    _add_space(parser)
    parser.add_argument("--json", action="store_true", help="the same as JSON, sizes in GiB")
    parser.add_argument(
        "--model-config", type=Path, metavar="FILE", help="a config.json in place of model.name"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="training rows, in place of the data")
    parser.add_argument("--workers", type=int, metavar="N", help="workers of a trial's file")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="does it fit, and if not?")
    parser.add_argument(
        "--teraflops", type=float, metavar="T", help="what a worker reaches; gives GPU-hours"
    )


def _run_plan(arguments: argparse.Namespace) -> int:
    from symnoise_ray.forecast import Options, as_text, plan, to_json

    space, overrides = _split_space(arguments)
    for name in ("rows", "workers", "gpu_memory", "teraflops"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be more than 0, but got {value:g}")
    options = Options(
        num_rows=arguments.rows,
        model_config=arguments.model_config,
        num_workers=arguments.workers,
        gpu_memory=arguments.gpu_memory,
        teraflops=arguments.teraflops,
    )
    planned = plan(space, overrides, options)
    print(json.dumps(to_json(planned), indent=2) if arguments.json else as_text(planned))
    return EXIT_OK


def _inspect(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "inspect",
        "Show training rows as the model sees them, and what is left out.",
        "symnoise-ray inspect data.train=alpaca.json data.eval_prompts=prompts.json --rows 5",
        _run_inspect,
    )
    parser.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a trial's YAML or config.json, or a space"
    )
    _add_overrides(parser)
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="rows shown (default: 3)")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def _run_inspect(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preview import as_text, preview, settings

    source, overrides = arguments.config, list(arguments.overrides)
    if source is not None and "=" in source:
        source, overrides = None, [source, *overrides]
    if arguments.rows < 0:
        raise UserError(f"--rows must be 0 or more, but got {arguments.rows}")
    shown = preview(settings(source, overrides), arguments.rows)
    if arguments.json:
        print(json.dumps(shown.to_json(), indent=2))
    else:
        print(as_text(shown, colour=sys.stdout.isatty()))
    return EXIT_OK


def _schema(verbs: Verbs) -> None:
    _verb(
        verbs,
        "schema",
        "Print the JSON Schema of search spaces, for editors.",
        "symnoise-ray schema > schema.json",
        _run_schema,
    )


def _run_schema(_arguments: argparse.Namespace) -> int:
    from symnoise_ray.loading import schema

    print(json.dumps(schema(), indent=2))
    return EXIT_OK


def _sync(verbs: Verbs) -> None:
    parser = _verb(
        verbs,
        "sync",
        "Send to MLflow what a sweep could not send while it ran.",
        "symnoise-ray sync runs/quickstart",
        _run_sync,
    )
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--uri", help="MLflow tracking URI; the sweep's own by default")


def _run_sync(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records import read_json
    from symnoise_ray.tracking import replay

    tracking = read_json(arguments.directory / "results.json")["tracking"]
    count = replay(arguments.directory, arguments.uri or tracking["uri"], tracking["experiment"])
    print(f"{count} events sent")
    return EXIT_OK
