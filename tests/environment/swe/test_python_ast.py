from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lit_agents.environment.swe.generate import mutations as bugs
from lit_agents.environment.swe.python_ast import parsed


@pytest.fixture
def another_thread_at_every_collection():
    """As with any library that watches the collector, or a finalizer that waits."""

    def yields(phase: str, info: object) -> None:
        time.sleep(0)

    before = gc.get_threshold()
    gc.callbacks.append(yields)
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)
    gc.callbacks.remove(yields)


@pytest.mark.usefixtures("another_thread_at_every_collection")
def test_threads_parse_beside_each_other():
    text = Path(bugs.__file__).read_text()
    with ThreadPoolExecutor(4) as threads:
        trees = list(threads.map(lambda _: parsed(text), range(24)))
    assert all(len(tree.body) == len(trees[0].body) for tree in trees)
