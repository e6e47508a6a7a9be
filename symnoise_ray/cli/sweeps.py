"""The verbs about a whole sweep: run it, check it, forecast it, report it again."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from symnoise_ray.cli.interrupt import leaving_at_once
from symnoise_ray.cli.verbs import Verbs, add_space, add_verb, split_space
from symnoise_ray.errors import EXIT_OK, EXIT_USER, UserError


def add_tune(verbs: Verbs) -> None:
    """Add `tune`."""
    parser = add_verb(
        verbs,
        "tune",
        "Run a sweep, from search space to verdict.",
        "symnoise-ray tune quickstart train.num_epochs=1 --output runs/short",
        _run_tune,
    )
    add_space(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="new or empty directory (runs/NAME by default)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the sweep in DIR or the last of runs/NAME; without one, start it",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, start and create nothing"
    )


def _run_tune(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        return _check_space(arguments)
    with leaving_at_once():
        from symnoise_ray.report.board import make_console
        from symnoise_ray.sweep.results import exit_code
        from symnoise_ray.sweep.run import run_sweep

    space, overrides = split_space(arguments)
    console = make_console()
    return exit_code(
        run_sweep(space, overrides, arguments.output, console, resume=arguments.resume)
    )


def add_validate(verbs: Verbs) -> None:
    """Add `validate`."""
    parser = add_verb(
        verbs,
        "validate",
        "Check a search space, its data and its model, or a launch file; start nothing.",
        "symnoise-ray validate my_space.yaml model.name=./model",
        _run_validate,
        prints_last=True,
    )
    add_space(parser)


def _run_validate(arguments: argparse.Namespace) -> int:
    from symnoise_ray.launch.check import is_launch_file

    path = Path(arguments.space)
    return _check_launch_file(arguments, path) if is_launch_file(path) else _check_space(arguments)


def _check_launch_file(arguments: argparse.Namespace, path: Path) -> int:
    """Every mistake is a line on the standard error."""
    from symnoise_ray.launch.check import check_launch_file

    if arguments.overrides:
        raise UserError(f"{path} is a launch file, which takes no key=value words; edit the file")
    checked = check_launch_file(path)
    for line in checked.unchecked:
        print(f"{path}: {line}", file=sys.stderr)
    for line in checked.complaints:
        print(f"error: {line}", file=sys.stderr)
    if checked.complaints:
        return EXIT_USER
    print(f"{path}: {checked.what}; usable, as far as it can be checked without launching it")
    return EXIT_OK


def _check_space(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preflight.inputs import prepare
    from symnoise_ray.space.counts import size_text

    config = prepare(*split_space(arguments))
    print(f"{config.name}: {size_text(config)}; all settings, files and the model are usable")
    return EXIT_OK


def add_plan(verbs: Verbs) -> None:
    """Add `plan`."""
    parser = add_verb(
        verbs,
        "plan",
        "Forecast steps, memory, disk and judge calls; start nothing, load no weights.",
        "symnoise-ray plan quickstart model.name=./model --gpu-memory 80",
        _run_plan,
        prints_last=True,
    )
    add_space(parser)
    parser.add_argument("--json", action="store_true", help="the same as JSON, sizes in GiB")
    parser.add_argument(
        "--model-config", type=Path, metavar="FILE", help="a config.json in place of model.name"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="training rows, in place of the data")
    parser.add_argument(
        "--row-tokens", type=float, metavar="T", help="of those rows, the mean number of tokens"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="workers where SPACE is a trial's file (default: 1); a sweep has workers.num_workers",
    )
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="does it fit, and if not?")
    parser.add_argument(
        "--teraflops", type=float, metavar="T", help="what a worker reaches; gives GPU-hours"
    )


def _run_plan(arguments: argparse.Namespace) -> int:
    from symnoise_ray.preflight.forecast import Options
    from symnoise_ray.preflight.plan import as_text, plan, to_json

    space, overrides = split_space(arguments)
    for name in ("rows", "row_tokens", "workers", "gpu_memory", "teraflops"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name.replace('_', '-')} must be more than 0, but got {value:g}")
    if arguments.row_tokens is not None and arguments.rows is None:
        raise UserError("--row-tokens is the length of rows that are not read; give --rows as well")
    options = Options(
        num_rows=arguments.rows,
        row_tokens=arguments.row_tokens,
        model_config=arguments.model_config,
        num_workers=arguments.workers,
        gpu_memory=arguments.gpu_memory,
        teraflops=arguments.teraflops,
    )
    planned = plan(space, overrides, options)
    print(json.dumps(to_json(planned), indent=2) if arguments.json else as_text(planned))
    return EXIT_OK


def add_report(verbs: Verbs) -> None:
    """Add `report`."""
    parser = add_verb(
        verbs,
        "report",
        "Write a sweep's report again from its files, or one page of several sweeps.",
        "symnoise-ray report runs/quickstart",
        _run_report,
        prints_last=True,
    )
    parser.add_argument(
        "directories", type=Path, nargs="+", metavar="DIR", help="directory of a sweep"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page of several sweeps (by default report.html beside the first one's directory)",
    )


def _run_report(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.files import require_writable
    from symnoise_ray.records.layout import REPORT_HTML
    from symnoise_ray.records.results import read_sweep
    from symnoise_ray.report.write import write_page, write_report
    from symnoise_ray.sweep.importance import importances

    results = [read_sweep(directory) for directory in _different(arguments.directories)]
    if len(results) == 1:
        if arguments.output is not None:
            raise UserError(
                f"--output {arguments.output} must be given with several sweeps, but there is one: "
                f"its report goes to {results[0].paths.report}"
            )
        write_report(results[0], importances(results[0]))
        print(results[0].paths.report)
        return EXIT_OK
    page = (arguments.output or arguments.directories[0].absolute().parent / REPORT_HTML).absolute()
    require_writable(page, "--output")
    write_page([(each, importances(each)) for each in results], page)
    print(page)
    return EXIT_OK


def _different(directories: list[Path]) -> list[Path]:
    """The sweeps in their order, each given once."""
    places = [directory.resolve() for directory in directories]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(
                f"report: every sweep must be given once, but {directories[number]} came twice; "
                "leave one out"
            )
    return directories


def add_card(verbs: Verbs) -> None:
    """Add `card`."""
    parser = add_verb(
        verbs,
        "card",
        "Write a model card and a summary of the evidence of a finished sweep.",
        "symnoise-ray card runs/quickstart",
        _run_card,
        prints_last=True,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")


def _run_card(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.results import read_sweep
    from symnoise_ray.report.card import write_card

    for path in write_card(read_sweep(arguments.directory)):
        print(path)
    return EXIT_OK


def add_sync(verbs: Verbs) -> None:
    """Add `sync`."""
    parser = add_verb(
        verbs,
        "sync",
        "Send to MLflow what a sweep could not send while it ran.",
        "symnoise-ray sync runs/quickstart",
        _run_sync,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory of the sweep")
    parser.add_argument("--uri", help="MLflow tracking URI; the sweep's own by default")


def _run_sync(arguments: argparse.Namespace) -> int:
    from symnoise_ray.records.results import read_sweep
    from symnoise_ray.tracking.mlflow_runs import replay
    from symnoise_ray.tracking.store import store_again

    sweep = read_sweep(arguments.directory)
    store = store_again(sweep.tracking_uri, sweep.experiment, arguments.uri, os.environ)
    count = replay(sweep.paths.directory, store.uri, store.experiment)
    print(f"{count} events sent")
    return EXIT_OK


def add_schema(verbs: Verbs) -> None:
    """Add `schema`."""
    parser = add_verb(
        verbs,
        "schema",
        "Print the JSON Schema of search spaces, for editors, or of results.json, for programs.",
        "symnoise-ray schema > schema.json",
        _run_schema,
        prints_last=True,
    )
    parser.add_argument("--results", action="store_true", help="that of results.json")


def _run_schema(arguments: argparse.Namespace) -> int:
    if arguments.results:
        from symnoise_ray.records.schema import shipped

        print(shipped(), end="")
        return EXIT_OK
    from symnoise_ray.config.loading import schema

    print(json.dumps(schema(), indent=2))
    return EXIT_OK
