"""The shape of the repository: who imports whom, how long things are, and what nobody writes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lit_agents"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A part may import itself and what stands below it. Parts of one line do not know each other. Every module belongs to a part.
LAYERS = [
    {"types", "errors", "rng", "distributed"},
    {"system"},
    {"sandbox"},
    {"environment", "reward", "policy"},
    {"algorithm"},
    {"rollout"},
    {"evaluation"},
    {"run"},
    {"study"},
    {"report"},
    {"fit", "evaluate", "tune", "audit", "export", "tasks"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}
OPTIONAL = ("textworld", "alfworld", "docker", "vllm", "wandb")


def part(module: str) -> str:
    """``reward`` for ``lit_agents.reward.dense``; empty for the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> Iterator[str]:
    """Every module of this package a file imports, at any depth, for types only as well."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lit_agents")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "lit_agents":
                yield from (f"lit_agents.{alias.name}" for alias in node.names)
            elif module.startswith("lit_agents."):
                yield module


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_go_down_only(path):
    mine = part(dotted(path))
    if not mine:  # the package itself
        assert not list(imports(path))
        return
    for module in imports(path):
        theirs = part(module)
        allowed = not theirs or mine == theirs or LAYER_OF[theirs] < LAYER_OF[mine] or {mine, theirs} <= LAYERS[0]
        assert allowed, f"{dotted(path)} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_files_and_functions_are_short(path):
    source = path.read_text()
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_an_algorithm_is_one_short_file():
    shared = {"__init__", "base", "losses", "advantages", "batch", "token_tree", "experience", "credit", "checkpoint"}
    shared |= {"metrics", "micro_batches"}
    for path in (PACKAGE / "algorithm").glob("*.py"):
        lines = path.read_text().count("\n")
        assert path.stem in shared or lines <= 80, f"{path.stem} has {lines} lines"


@pytest.mark.parametrize("pillar", ["environment", "reward"])
def test_environments_and_rewards_are_imported_without_torch(pillar):
    modules = [dotted(path) for path in MODULES if part(dotted(path)) == pillar]
    run_python(f"import sys\nimport {', '.join(modules)}\nassert 'torch' not in sys.modules, 'torch was imported'")


def test_every_module_is_imported_where_optional_packages_are_absent():
    run_python(
        f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {[dotted(path) for path in MODULES]!r}:
    importlib.import_module(name)
"""
    )


def texts() -> list[Path]:
    """Everything a person reads: code, configurations, scripts, documents."""
    folders = ("lit_agents", "conf", "sweeps", "scripts", "benchmarks", "tests", "docs")
    endings = {".py", ".yaml", ".sh", ".md", ".toml"}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    return sorted(path for path in files if path.suffix in endings and path != Path(__file__))


def test_nobody_writes_a_drawer_for_everything():
    assert not [named(path) for path in texts() if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_nothing_is_left_for_later():
    assert not [named(path) for path in texts() if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())]


def test_no_path_of_one_machine_is_written_down():
    machine = re.compile(r"(?<![\w.])/(?:work|home|Users)/\w|(?<![\w.])/tmp/w/")
    found = [(named(path), hit.group()) for path in texts() if (hit := machine.search(path.read_text()))]
    assert not found
