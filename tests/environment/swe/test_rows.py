"""Real rows: read, supplied with their repository, verified; on a repository small enough to know by heart."""

from __future__ import annotations

import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from lit_agents.environment.swe import SweGym
from lit_agents.environment.swe.repositories import patched, repository
from lit_agents.environment.swe.rows import read_rows
from lit_agents.environment.swe.sandbox.engine import DockerSandbox
from lit_agents.environment.swe.sandbox.terms import SandboxError
from lit_agents.environment.swe.sandbox.trusted import SubprocessSandbox
from lit_agents.environment.swe.specs import SPECS, Spec, spec_of
from lit_agents.environment.swe.tree import File, packed, read_folder
from lit_agents.errors import BadInput
from lit_agents.tasks import wins
from tests.environment.swe.little import SOURCE, little_package
from tests.shared_data import shared_data

PROJECT = """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "little"
version = "1"
"""
NEW_TEST = "\n\ndef test_last():\n    from little.core import last\n    assert last([1, 2]) == 2\n"
NEW_CODE = "\n\ndef last(values):\n    return values[-1]\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@e"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = little_package(tmp_path_factory.mktemp("git") / "little")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "needs.txt").write_text("pytest\n")  # pip finds it only in the repository
    (folder / ".gitattributes").write_text("tests export-ignore\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder


@pytest.fixture(scope="module")
def row(repo: Path) -> dict[str, object]:
    """What somebody's pull request would give."""
    base = git(repo, "rev-parse", "HEAD").strip()
    (repo / "little" / "core.py").write_text(SOURCE + NEW_CODE)
    patch = git(repo, "diff")
    git(repo, "checkout", "-q", ".")
    tests = repo / "tests" / "test_core.py"
    tests.write_text(tests.read_text() + NEW_TEST)
    test_patch = git(repo, "diff")
    git(repo, "checkout", "-q", ".")
    (repo / "little" / "core.py").write_text("broken later")
    git(repo, "commit", "-qam", "later history, which nobody sees")
    kept = ["tests/test_core.py::test_clamp[a", "tests/test_core.py::test_clamp[d]", "tests/test_core.py::test_gone"]
    return {
        "instance_id": "me__little-1",
        "repo": "me/little",
        "version": "1.0",
        "base_commit": base,
        "problem_statement": "There is no last.",
        "hints_text": "values[-1]",
        "patch": patch,
        "test_patch": test_patch,
        "FAIL_TO_PASS": json.dumps(["tests/test_core.py::test_last"]),
        "PASS_TO_PASS": kept,
    }


def written(rows: list[dict[str, object]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_verified_and_played(
    repo: Path, row: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(SPECS, "me/little", (Spec("0", "", ("-r needs.txt",)),))
    breaks = {"instance_id": "me__little-2", "patch": row["test_patch"], "test_patch": row["patch"]}
    rows = [
        row,
        row | breaks,
        row | {"instance_id": "me__little-3", "base_commit": "0" * 40},
        row | {"instance_id": "me__little-4", "FAIL_TO_PASS": ["tests/test_core.py::test_total"]},
        row | {"instance_id": "me__little-5", "patch": str(row["patch"]).replace("return list", "return tuple")},
    ]
    home = tmp_path / "home"
    swe = SweGym(
        str(home), SubprocessSandbox(), rows=written(rows, tmp_path / "r.jsonl"), sources={"me/little": [str(repo)]}
    )
    said = swe.install().splitlines()
    assert "1 of 5 rows" in said[0] and len(said) == 5
    assert "fail without the fix" in said[1] and "me__little-2" in said[1]
    assert "unable to read tree" in said[2] or "reference is not a tree" in said[2]
    assert (
        said[3].endswith("0 of 1 tests fail without the fix and pass with it (8 passed, 1 skipped).")
        and "does not apply" in said[4]
    )
    assert swe.install().splitlines() == said  # those that fell are tried again

    (split,) = [s for s in ("train", "sft", "validation", "test") if _has_tasks(swe, s)]
    (task,) = swe.tasks("rows:me/little", split, 1)
    with pytest.raises(BadInput, match="0 rows of rows:you/other"):
        swe.tasks("rows:you/other", split, 1)
    start = swe.reset(task)
    assert "There is no last." in start.observation and "values[-1]" not in start.observation
    assert "test_last" not in swe.step("cat tests/test_core.py").observation  # graded with, not shown
    assert swe.step("git log 2>&1").observation.startswith("fatal: not a git repository")
    last = swe.step("submit")
    assert (
        last.lost and last.signals["kept"] == 1.0 and last.signals["passed"] == pytest.approx(2 / 3)
    )  # test_gone is in nothing
    swe.reset(task)
    while not last.won:
        action = swe.expert_action()
        assert action is not None
        last = swe.step(action)
    swe.close()

    def splits(name: str, content: dict[str, object]) -> list[str]:
        source = written([content], tmp_path / name)
        other = SweGym(str(home), SubprocessSandbox(), rows=source, sources={"me/little": [str(repo)]})
        other.install()
        return [s for s in ("train", "sft", "validation", "test") if _has_tasks(other, s)]

    (home / "rows" / "me__little-1.json").unlink()
    named = row | {"instance_id": "me__little-2"}  # by its name it would be trained on
    assert splits("s.jsonl", named) == ["train"]
    assert (
        splits("s_verified.jsonl", named | {"patch": row["test_patch"]}) == []
    )  # it cannot be used, and yet is held out
    assert splits("s.jsonl", named) == ["test"]  # once held out, always held out
    assert (
        splits("s.jsonl", named | {"FAIL_TO_PASS": ["tests/test_core.py::test_total"]}) == []
    )  # another row by the same name


def test_a_patch_that_is_the_bug_is_where_the_agent_begins(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SPECS, "swesmith/me__little.1", (Spec("0", "", ("-r needs.txt", ".")),))
    mirror = little_package(tmp_path / "mirror")
    for name in ("pyproject.toml", "needs.txt"):
        (mirror / name).write_text((repo / name).read_text())
    tests = mirror / "tests" / "test_core.py"
    tests.write_text(tests.read_text() + NEW_TEST)
    (mirror / "little" / "core.py").write_text(SOURCE + NEW_CODE)
    git(mirror, "init", "-q")
    git(mirror, "add", "-A")
    git(mirror, "commit", "-qm", "the mirror's one commit")
    (mirror / "little" / "core.py").write_text(SOURCE + NEW_CODE.replace("-1", "0"))
    named = {
        "instance_id": "me__little.1.x",
        "repo": "swesmith/me__little.1",
        "problem_statement": "The last is the first.",
    }
    tested = {"FAIL_TO_PASS": ["tests/test_core.py::test_last"], "PASS_TO_PASS": ["tests/test_core.py::test_total"]}
    bug = {**named, **tested, "patch": git(mirror, "diff"), "image_name": "smith/x"}
    git(mirror, "checkout", "-q", ".")
    sources, rows = {"swesmith/me__little.1": [str(mirror)]}, written([bug], tmp_path / "smith_test.jsonl")
    swe = SweGym(str(tmp_path / "home"), SubprocessSandbox(), rows=rows, sources=sources)
    assert swe.install().endswith("1 of 1 rows can be used here")
    assert [split for split in ("train", "sft", "validation", "test") if _has_tasks(swe, split)] == ["test"]  # held out
    assert wins(swe, swe.tasks("rows:swesmith/me__little.1", "test", 1)) == 1
    (packages,) = (tmp_path / "home").glob("venvs/*/lib/python3*/site-packages")
    there = {path.name for path in packages.iterdir()}
    assert "little-1.dist-info" in there and not there & {
        "little",
        "pip",
    }  # the repository itself is in the work folder alone
    swe.close()


def _has_tasks(swe: SweGym, split: str) -> bool:
    try:
        return bool(swe.tasks("rows", split, 1))
    except BadInput:
        return False


def no_image() -> bytes:
    raise SandboxError("runs none")


def test_files_come_from_an_image_with_what_was_built_in_it(engine: str, tmp_path: Path):
    sandbox = DockerSandbox(url=engine)
    tree = {
        "testbed/a.py": File(b"x = 1\n"),
        "testbed/a.so": File(b"built", executable=True),
        "etc/secret": File(b"no"),
    }
    tree |= {"testbed/.git/HEAD": File(b"history"), "testbed/link": File(b"a.py", is_link=True)}
    with closing(docker_client(engine)) as client:
        client.api.import_image_from_data(packed(tree), repository="lit_agents/little:1")
        try:
            found = repository(
                "me/little", "0" * 40, ["image"], tmp_path, lambda: sandbox.image_files("lit_agents/little:1")
            )
            assert found == {
                "a.py": File(b"x = 1\n"),
                "a.so": File(b"built", executable=True),
                "link": File(b"a.py", is_link=True),
            }
            assert client.containers.list(all=True, filters={"ancestor": "lit_agents/little:1"}) == []
        finally:
            client.images.remove("lit_agents/little:1")
    with pytest.raises(BadInput, match=r"image: .*localhost:1"):  # and there is no registry
        repository("me/little", "", ["image"], tmp_path, lambda: sandbox.image_files("localhost:1/lit_agents/little"))
    with pytest.raises(BadInput, match="image: a SubprocessSandbox runs no images"):
        repository("me/little", "", ["image"], tmp_path, lambda: SubprocessSandbox().image_files("x"))


def docker_client(url: str):
    return pytest.importorskip("docker").DockerClient(base_url=url, timeout=20)


def test_files_come_from_git_a_folder_or_an_archive_without_their_history(
    repo: Path, row: dict[str, object], tmp_path: Path
):
    commit = str(row["base_commit"])
    by_folder = repository("me/little", commit, [str(repo)], tmp_path, no_image)
    assert (
        "tests/test_core.py" in by_folder and by_folder["little/core.py"].data.decode() == SOURCE
    )  # export-ignore is ignored
    assert not any(".git/" in path for path in by_folder)
    by_url = repository("me/little", commit, ["image", "/nowhere", f"file://{repo}"], tmp_path, no_image)
    assert by_url == by_folder == repository("me/little", commit, [f"file://{repo}"], tmp_path, no_image)
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.py").write_text("a")
    assert repository("me/plain", "", [f"{tmp_path}/{{repo}}", f"{tmp_path}/plain"], tmp_path, no_image) == read_folder(
        tmp_path / "plain"
    )
    with pytest.raises(
        BadInput,
        match=r"me/little: its files cannot be had \(image: runs none; /nowhere: .*no such folder.*file:///gone: ",
    ):
        repository("me/little", commit, ["image", "/nowhere", "file:///gone"], tmp_path, no_image)


def test_a_patch_makes_changes_and_deletes(tmp_path: Path):
    tree = read_folder(little_package(tmp_path)) | {
        "little.egg-info/PKG-INFO": File(b"of an sdist, and changed by nobody")
    }
    assert patched(tree, "") == {}
    change = patched(tree, "--- a/little/__init__.py\n+++ b/little/__init__.py\n@@ -0,0 +1 @@\n+x = 1\n")
    assert {path: file and file.data for path, file in change.items()} == {"little/__init__.py": b"x = 1\n"}
    with pytest.raises(BadInput, match="does not apply"):
        patched(tree, "--- a/gone.py\n+++ b/gone.py\n@@ -1 +1 @@\n-a\n+b\n")
    with pytest.raises(BadInput, match="does not apply"):
        patched(tree, "--- a/../outside\n+++ b/../outside\n@@ -0,0 +1 @@\n+x\n")


def test_rows_are_read_from_every_kind_of_file(row: dict[str, object], tmp_path: Path):
    (line,) = read_rows(written([row], tmp_path / "a.jsonl"))
    assert line.fail_to_pass == ("tests/test_core.py::test_last",) and len(line.pass_to_pass) == 3
    assert line.image == "xingyaoww/sweb.eval.x86_64.me_s_little-1"
    assert read_rows(str(tmp_path / "a.jsonl"), images="")[0].image == ""
    assert read_rows(str(tmp_path / "a.jsonl"), images="swebench")[0].image.endswith("me_1776_little-1")
    assert not line.held_out and not line.is_bug
    (tmp_path / "a.json").write_text(json.dumps([row | {"image": "mine"}]))
    assert read_rows(str(tmp_path / "a.json"))[0].image == "mine"
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist([row])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_rows(str(tmp_path / "a.parquet")) == [line]
    for name, text, words in (
        ("gone.jsonl", None, "no such file"),
        ("b.jsonl", "{", "cannot be read"),
        ("c.jsonl", '{"instance_id": "x"}', "row 1 has not SWE-Gym's fields"),
        ("d.parquet", "x", "cannot be read"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=words):
            read_rows(str(tmp_path / name))


def test_the_sample_rows_are_understood():
    gym, dev = (read_rows(str(shared_data(f"swe/{name}.jsonl"))) for name in ("swegym_sample", "swebench_dev_sample"))
    assert (len(gym), len(dev)) == (5, 64)
    assert gym[0].image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-7365"
    assert dev[0].image == "swebench/sweb.eval.x86_64.marshmallow-code_1776_marshmallow-1164:latest"
    assert (
        sum(
            any(test.endswith(("Missing", "[")) or ("[" in test and "]" not in test) for test in row.pass_to_pass)
            for row in dev
        )
        > 20
    )


def test_a_version_is_a_number_not_a_text():
    assert spec_of("python/mypy", "1.10").python == "3.12" and spec_of("python/mypy", "1.7").python == "3.12"
    assert spec_of("python/mypy", "1.6").python == "3.11" and spec_of("python/mypy", "0.920").python == "3.9"
    assert spec_of("some/other", "2").install == (".", "pytest")
    for specs in SPECS.values():
        numbers = [[int(part) for part in spec.since.split(".")] for spec in specs]
        assert numbers == sorted(numbers)


REAL = "marshmallow-code__marshmallow-1343"


@pytest.mark.slow
def test_a_real_row_holds_with_its_release_and_is_won_by_its_fix(tmp_path: Path):
    sample = shared_data("swe/swebench_dev_sample.jsonl").read_text().splitlines()
    (line,) = (line for line in sample if json.loads(line)["instance_id"] == REAL)
    (tmp_path / "row.jsonl").write_text(line + "\n")
    sources = {"marshmallow-code/marshmallow": ["sdist:marshmallow==2.20.0"]}
    swe = SweGym(str(tmp_path / "home"), rows=str(tmp_path / "row.jsonl"), sources=sources)
    assert swe.install() == f"{tmp_path / 'row.jsonl'}: 1 of 1 rows can be used here"
    (split,) = (split for split in ("train", "sft", "validation", "test") if holds(swe, split))
    assert wins(swe, swe.tasks("rows", split, 1)) == 1
    assert not list((tmp_path / "home" / "venvs").glob("*/lib/python3*/site-packages/marshmallow"))
    swe.close()


def holds(swe: SweGym, split: str) -> bool:
    try:
        return len(swe.tasks("rows", split, 1)) == 1
    except BadInput:
        return False
