"""The house: imports only point down, wings show few faces, and files stay small enough to read.

The lists below are the architecture; the README's tree shows the same wings.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "symnoise_ray"

FLOORS = [
    {"errors", "demo"},
    {"noise"},
    {"config"},
    {"records"},
    {"data", "models", "statistics"},
    {"space"},
    {"training", "generation", "judges", "report"},
    {"preflight", "integrations", "launch"},
    {"workers", "tracking"},
    {"sweep"},
    {"cli"},
    {"tune", "train", "__main__"},
]
FACES = {
    "demo": {"content"},
    "noise": {"types", "embedding", "layers"},
    "config": {"config", "data", "deepspeed_json", "faults", "judge", "loading", "redaction"},
    "records": {
        *("completions", "files", "layout", "metrics", "preferences", "results", "schema"),
        *("sqlite", "verdict"),
    },
    "data": {"example", "prompts", "rows", "sources", "templates", "token_table", "tokens"},
    "models": {
        *("deepspeed_engine", "folder", "pretrained", "process", "shape", "source", "tokenizer"),
        "weights",
    },
    "statistics": {
        *(
            "agreement",
            "answer_statistics",
            "blocks",
            "bootstrap",
            "crossed",
            "decision",
            "early_exit",
        ),
        *("early_stopping", "fit", "groups", "judged_models", "length_control", "looks"),
        *("pooling", "power", "two_way", "win_rate", "words"),
    },
    "space": {"check", "counts", "design", "parameters", "paths", "spread", "step_costs", "trials"},
    "training": {"corpus", "loop", "schedule"},
    "generation": {"answering", "harness", "harness_tasks", "room", "vllm_package"},
    "judges": {"choose", "judging", "protocol", "remote", "self_check"},
    "report": {"board", "card", "contrast", "standing", "words", "write"},
    "integrations": {"alpaca_eval", "export"},
    "launch": {"check"},
    "preflight": {
        *("cluster", "disk", "forecast", "inputs", "placement", "plan", "power", "preview"),
        *("probe", "resources"),
    },
    "workers": {"client", "job_place", "outcome", "pool", "session", "task"},
    "tracking": {"events", "mlflow_runs", "origin", "store"},
    "sweep": {"importance", "orders", "rejudge", "replay", "results", "run"},
    "cli": {"door"},
}
"""Of each wing, the modules that other wings import; the rest is its own."""
LIGHT = (
    *("config", "records", "space", "statistics", "preflight", "launch", "cli"),
    "report",
    *(
        "errors",
        "noise.types",
        "training.schedule",
        "generation.harness_tasks",
        "generation.room",
        "tracking.journal",
    ),
    *("data.example", "data.formats", "data.overlap", "data.prompts", "data.rows", "data.sources"),
    *("data.templates", "data.tokens", "data.chat_template", "data.chat_answers", "data.files"),
    *(
        "models.folder",
        "models.source",
        "models.shape",
        "models.tokenizer",
        "judges.judging",
        "judges.choose",
    ),
    *("integrations.alpaca_eval", "integrations.export"),
)
"""Wings and modules that a check of the input imports: it answers in a moment."""
HEAVY = {"torch", "ray", "transformers", "mlflow", "deepspeed", "optuna"}
OWNERS = {
    "deepspeed": {"models"},
    "mlflow": {"tracking"},
    "optuna": {"sweep"},
    "ray.tune": {"sweep"},
    "ray.train": {"workers"},
    "sacrebleu": {"judges"},
    "openai": {"judges"},
    "alpaca_eval": {"judges"},
    "datasets": {"data"},
    "peft": {"models"},
    "lm_eval": {"generation"},
    "rich": {"report", "sweep"},
    "jinja2": {"report"},
    "altair": {"report"},
    "vl_convert": {"report"},
    "shtab": {"cli"},
}
LONGEST_FUNCTION, LONGEST_MODULE = 60, 350


@cache
def sources() -> dict[str, ast.Module]:
    """Dotted name below the package -> its tree; a wing's own file has the wing's name."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 80
    return {_name(path): ast.parse(path.read_text()) for path in files}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(tree: ast.AST) -> frozenset[str]:
    """Everything that a file imports, at its top or later."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def own_imports(tree: ast.AST) -> set[str]:
    """Modules of the package that a file imports."""
    prefix = f"{PACKAGE.name}."
    named = {name.removeprefix(prefix) for name in imports(tree) if name.startswith(prefix)}
    return {name for name in named if name in sources()}


def wing(module: str) -> str:
    return module.split(".")[0]


def test_imports_only_point_down():
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    assert {wing(module) for module in sources()} == set(level)
    upward = [
        f"{module} imports {used}"
        for module, tree in sources().items()
        for used in own_imports(tree)
        if wing(used) != wing(module) and level[wing(used)] >= level[wing(module)]
    ]
    assert upward == []


def test_no_modules_of_a_wing_import_each_other_in_a_circle():
    waiting = {
        module: {used for used in own_imports(tree) if wing(used) == wing(module)} - {wing(module)}
        for module, tree in sources().items()
    }
    while free := [module for module, used in waiting.items() if not used & set(waiting)]:
        for module in free:
            del waiting[module]
    assert waiting == {}


def test_a_wing_is_entered_by_its_faces_only():
    entered: dict[str, set[str]] = {}
    for module, tree in sources().items():
        for used in own_imports(tree):
            # `from symnoise_ray.wing import module` names the wing as well, and no door of it.
            if wing(used) != wing(module) and (used != wing(used) or _has_names(used)):
                entered.setdefault(wing(used), set()).add(used.rpartition(".")[2])
    entered.pop("errors")
    assert entered == FACES


def _has_names(package: str) -> bool:
    """Whether a wing's own file defines anything."""
    return len(sources()[package].body) > 1


def test_a_dependency_is_owned_by_one_wing():
    for package, owners in OWNERS.items():
        users = {
            wing(module)
            for module, tree in sources().items()
            if any(name == package or name.startswith(f"{package}.") for name in imports(tree))
        }
        assert users == owners, package


def test_what_checks_the_input_imports_nothing_heavy():
    light = [m for m in sources() if m in LIGHT or wing(m) in LIGHT]
    modules = [f"{PACKAGE.name}.{module}" for module in sorted(light)]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_functions_and_modules_are_short_and_say_what_they_are():
    for module, tree in sources().items():
        assert ast.get_docstring(tree), f"{module} has no docstring"
        length = max((getattr(node, "end_lineno", 0) for node in tree.body), default=0)
        assert length <= LONGEST_MODULE, f"{module} has {length} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{module}.{node.name} has {length} lines"


def test_the_own_file_of_a_wing_is_a_docstring():
    packages = [
        _name(path.parent / "x").removesuffix(".x") for path in PACKAGE.glob("*/__init__.py")
    ]
    assert len(packages) == len(FACES)
    with_names = {package for package in packages if _has_names(package)}
    assert with_names == {"config"}
