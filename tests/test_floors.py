"""Imports only point down: the architecture table of the README, kept true by walking the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "symnoise_ray"

FLOORS = [
    {"errors", "demo", "deepspeed_json", "bootstrap"},
    {"config", "length_control", "compare", "early"},
    {"loading", "records", "lease"},
    {"prompts", "annotations", "answers"},
    {"space", "formats", "overlap", "chat", "score"},
    {"rows", "tokens", "standing"},
    {"inputs", "results", "resume"},
    {"plans", "shapes"},
    {"memory", "counts"},
    {"forecast"},
    {"outlook"},
    {"philox"},
    {"noise", "head", "engine", "live", "charts", "session", "proposals"},
    {"cache", "packing", "model", "judges", "directory"},
    {"batches", "corpus", "checkpoints"},
    {"objective", "meter"},
    {"evaluate"},
    {"train", "generate", "harness", "page", "preview"},
    {"workers", "tracking", "sections"},
    {"trial", "report"},
    {"watch"},
    {"search", "confirm"},
    {"sweep"},
    {"cli"},
    {"tune", "__main__"},
]
NUM_LIGHT_FLOORS = 11
HEAVY = {"torch", "ray", "transformers", "mlflow", "deepspeed", "optuna"}
OWNED = {
    "deepspeed": {"engine"},
    "mlflow": {"tracking"},
    "optuna": {"proposals"},
    "ray.tune": {"search"},
    "ray.train": {"workers"},
    "sacrebleu": {"judges"},
    "openai": {"judges"},
    "alpaca_eval": {"judges"},
    "datasets": {"rows"},
    "peft": {"model"},
    "lm_eval": {"harness", "inputs"},
}


def room(path: Path) -> str:
    """Module or sub-package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    """All modules that have a floor: the package's own file has none."""
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]
    assert len(files) > 30
    return files


def imports(tree: ast.AST) -> set[str]:
    """Modules imported anywhere in a file, but for its `__main__` block."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        names |= imports(node)
    return names


def own_rooms(names: set[str]) -> set[str]:
    rooms = {name.split(".")[1] for name in names if name.startswith("symnoise_ray.")}
    return {name for name in rooms if any(name in floor for floor in FLOORS)}


def test_every_module_has_one_floor():
    rooms = {room(path) for path in sources()}
    assert rooms == set().union(*FLOORS)
    assert sum(len(floor) for floor in FLOORS) == len(rooms)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_floors_below(path: Path):
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    own = room(path)
    for used in own_rooms(imports(ast.parse(path.read_text()))) - {own}:
        assert level[used] < level[own], f"{own} imports {used}, which is not below it"


@pytest.mark.parametrize("package", OWNED)
def test_a_dependency_is_owned_by_one_room(package: str):
    users = {
        room(path)
        for path in sources()
        if any(
            name == package or name.startswith(f"{package}.")
            for name in imports(ast.parse(path.read_text()))
        )
    }
    assert users == OWNED[package]


def test_the_light_floors_import_nothing_heavy():
    light = sorted(set().union(*FLOORS[:NUM_LIGHT_FLOORS]))
    code = (
        f"import sys\nfor name in {light}: __import__('symnoise_ray.' + name)\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_no_function_is_longer_than_eighty_lines():
    functions = [
        (path.name, node.name, node.end_lineno - node.lineno + 1)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [function for function in functions if function[2] > 80] == []


def test_every_module_says_what_it_is():
    for path in [*sources(), PACKAGE / "__init__.py"]:
        assert ast.get_docstring(ast.parse(path.read_text())), path
