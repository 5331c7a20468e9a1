"""A page as a real browser shows it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

MEASURE = """<script>
document.title = JSON.stringify({
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  back: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.querySelector("svg text") || document.body).fill,
  pictures: [...document.querySelectorAll("svg")].map(each => each.getBoundingClientRect().height),
  tables: Object.fromEntries([...document.querySelectorAll("table")].map(each =>
    [each.id, [...each.rows].map(row => [...row.cells].map(cell => cell.innerText))])),
  chats: [...document.querySelectorAll(".world")].map(each => each.textContent),
  gaps: [...document.querySelectorAll(".gaps li")].map(each => each.innerText),
  requests: performance.getEntriesByType("resource").map(each => each.name),
})
</script></body>"""


def browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if not found:
        pytest.skip("no Chromium is installed (Debian: chromium)")
    return found


def shown(page: Path, width: int = 1280, dark: bool = False) -> dict[str, Any]:
    """What a script that is added to a copy of the page finds in it."""
    text = page.read_text(encoding="utf-8")
    policy = re.compile('<meta http-equiv="Content-Security-Policy".*?>')
    assert policy.search(text)  # which would keep the script out
    copy = page.with_name("measured.html")
    copy.write_text(policy.sub("", text).replace("</body>", MEASURE), encoding="utf-8")
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [*(["--force-dark-mode"] if dark else []), "--dump-dom", f"file://{copy.resolve()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    copy.unlink()
    title = re.search("<title>(.*?)</title>", done.stdout, re.S)
    assert title
    return dict(json.loads(title.group(1).replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")))


def title_of(page: Path) -> str:
    """Of the page itself, whatever ran in it."""
    command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{page.resolve()}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search("<title>(.*?)</title>", done.stdout, re.S)
    assert found
    return found.group(1)
