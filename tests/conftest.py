"""What holds for all tests."""

import signal
from pathlib import Path

import pytest

TOGETHER = (
    *("algorithm", "evaluation", "policy", "report", "reward", "rollout", "test_structure.py"),
    *("environment/alfworld", "environment/textworld", "run/callbacks/test_health.py"),
    *(f"environment/test_{name}.py" for name in ("checker", "split_overlap", "tasks", "toy")),
    *("environment/swe/dataset", "environment/swe/generate"),
    *(f"environment/swe/test_{name}.py" for name in ("cheat_check", "expert", "grading", "paths", "python_ast")),
    *(f"study/test_{name}.py" for name in ("config", "config_merge", "storage")),
    *(
        f"integration/test_{name}.py"
        for name in ("audit", "budget", "cli", "command_line", "configs", "contracts", "errors")
    ),
    *(f"integration/test_{name}.py" for name in ("evaluate", "export", "fit", "knobs", "learning", "readme")),
    *(f"integration/test_{name}.py" for name in ("reproduce", "run_audit", "splits")),
)
"""Folders and files whose tests nothing else on the machine could disturb, and which disturb nothing."""
SLOW_SECONDS = 900
"""Time limit of a slow test that sets none."""


pytest_plugins = ("tests.sandbox.fixtures",)


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and then interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `scripts/test.sh` runs on all cores, and give slow tests more time."""
    together = {Path(__file__).parent / name for name in TOGETHER}
    for item in items:
        if together & {item.path, *item.path.parents}:
            item.add_marker(pytest.mark.parallel)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
