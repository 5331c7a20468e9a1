"""The page in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lit_agents.report.__main__ import report
from tests.report.browser import shown, title_of
from tests.report.folders import at, run, study
from tests.report.test_tables import won


@pytest.fixture
def page(tmp_path: Path) -> Path:
    away = {stage: {"away": won("10000000")} for stage in ("base", "sft", "rl")}
    stages = {"base": won("00000000"), "sft": won("11000000"), "rl": won("11110000")}
    for name, seed in (("a", 1), ("b", 2), ("c", 1)):
        run(tmp_path / f"runs/{name}", stages, seed, away)
    trials = [{"label": "split 0.5", "runs": [at("a"), at("b")]}, {"label": "split <1>", "runs": [at("c")]}]
    trials += [{"label": "split 2", "state": "FAIL", "error": "<b>out of memory</b>"}]
    return report([study(tmp_path, trials, objectives=["test", "away"])])


def test_a_browser_shows_tables_pictures_chats_and_gaps(page: Path):
    seen = shown(page)
    rows = seen["tables"]["split-success_test"]
    assert rows[1][:1] == ["split 0.5"] and rows[1][3].startswith("0.500") and rows[2][0] == "split <1>"
    assert len(seen["pictures"]) == 3 and min(seen["pictures"]) > 100
    assert any("a room" in text for text in seen["chats"]) and len(seen["chats"]) == 4
    assert seen["gaps"] == ["split 2: <b>out of memory</b>"]
    assert seen["requests"] == []


@pytest.mark.parametrize("width", [1280, 500])
def test_it_fits_and_is_light_or_dark_as_the_reader_likes_it(page: Path, width: int):
    light, dark = shown(page, width), shown(page, width, dark=True)
    assert not light["dark"] and dark["dark"]
    assert light["back"] == "rgb(255, 255, 255)" and dark["back"] != light["back"]
    assert light["ink"] != dark["ink"]  # of the pictures' text too
    assert light["wide"] == dark["wide"] == 0


def test_nothing_that_a_run_said_is_run(page: Path):
    assert title_of(page) == "split: lit_agents"  # the episodes say <script>document.title = ...


def test_what_a_run_said_is_text(page: Path):
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:|//|file:)", text)
