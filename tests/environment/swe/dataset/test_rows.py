"""Real rows: read, supplied with their repository, verified; on a repository small enough to know by heart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from lit_agents.environment.swe import SweGym
from lit_agents.environment.swe.dataset.checkout import patched, repository
from lit_agents.environment.swe.dataset.held_out import is_held_out
from lit_agents.environment.swe.dataset.install_specs import SPECS, spec_of
from lit_agents.environment.swe.dataset.recipes import recipes
from lit_agents.environment.swe.dataset.rows import read_rows
from lit_agents.environment.swe.dataset.validate import How, verified
from lit_agents.environment.swe.dataset.venv import VARIABLES, _run, virtual_environment
from lit_agents.environment.swe.file_tree import File, packed, read_folder
from lit_agents.environment.swe.pytest_runner import PYTEST
from lit_agents.environment.swe.splits import SPLITS
from lit_agents.environment.swe.task import Requirements
from lit_agents.environment.task_sets import wins
from lit_agents.errors import BadInput
from lit_agents.sandbox.docker import DockerSandbox
from lit_agents.sandbox.local import SubprocessSandbox
from lit_agents.sandbox.types import Runtime, SandboxError
from lit_agents.system.files import text_lines
from lit_agents.tasks import main
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


def recipe(folder: Path, repo: str, *packages: str) -> str:
    """A file that says how a repository is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipes.yaml").write_text(json.dumps({repo: {"0": {"packages": packages}}}))
    return str(folder / "recipes.yaml")


def written(rows: list[dict[str, object]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_verified_and_played(repo: Path, row: dict[str, object], tmp_path: Path, capsys):
    breaks = {"instance_id": "me__little-2", "patch": row["test_patch"], "test_patch": row["patch"]}
    rows = [
        row | {"instance_id": "Me/little 1"},  # an identifier is any text
        row | breaks,
        row | {"instance_id": "../me__little-3", "base_commit": "0" * 40},
        row | {"instance_id": "me__little-4", "FAIL_TO_PASS": ["tests/test_core.py::test_total"]},
        row | {"instance_id": "me__little-5", "patch": str(row["patch"]).replace("return list", "return tuple")},
        row | {"instance_id": "me__little-6", "problem_statement": None},
        row | {"instance_id": "me__little-7", "repo": "you/none"},
        row | {"instance_id": "me__little-8", "repo": "you/none"},
        row | {"instance_id": "Me/little 1", "patch": ""},
    ]
    home = tmp_path / "home"
    swe = SweGym(
        str(home),
        SubprocessSandbox(),
        rows=written(rows, tmp_path / "r.jsonl"),
        sources={"Me/Little": [str(repo)]},
        recipes=recipe(tmp_path, "ME/little", "-r needs.txt"),
        workers=2,
    )
    said = swe.install()
    first, lost, *refused, held = said.splitlines()
    assert "1 of 9 rows" in first and "1 of their 3 PASS_TO_PASS tests do not hold here" in lost
    assert "Me/little 1 1 of 3" in lost and "not held out" in held and "--held_out true" in held
    two, *others = refused
    assert two.startswith("  2 refused: nothing says how you/none is installed here") and "--recipes FILE" in two
    assert two.endswith("(me__little-7, me__little-8)") and len(others) == 6
    by_row = {line.rpartition(" (")[2].rstrip(")"): line for line in others}
    assert "fail without the fix" in by_row["me__little-2"]
    assert "reference is not a tree" in by_row["../me__little-3"] or "unable to read tree" in by_row["../me__little-3"]
    assert "0 of 1 tests fail without the fix and pass with it" in by_row["me__little-4"]
    assert "does not apply" in by_row["me__little-5"] and "no problem statement" in by_row["me__little-6"]
    assert "another row before it has the same instance_id" in by_row["Me/little 1"]
    progress = capsys.readouterr().err.splitlines()
    assert len(progress) == 9 and progress[-1].startswith("[9 of 9, 8 refused] ")
    assert any("Me/little 1: can be used; 2 of 3 PASS_TO_PASS tests hold here" in line for line in progress)
    assert swe.install() == said  # those that fell are tried again
    assert len(list(home.rglob("*.json"))) == 1 and not list(tmp_path.glob("me__*"))

    (split,) = [s for s in SPLITS if _has_tasks(swe, s)]
    (task,) = swe.tasks("rows:me/LITTLE", split, 1)
    assert task.id == "Me/little 1"
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


def test_a_set_of_which_no_row_can_be_used_is_an_error(repo: Path, row: dict[str, object], tmp_path: Path, capsys):
    rows = written([row], tmp_path / "r.jsonl")
    assert main(["swe", "--folder", str(tmp_path), "--rows", rows, "--sandbox", "SubprocessSandbox"]) == 2
    said = capsys.readouterr()
    assert "rows: none of them can be used here" in said.err and "1 refused: nothing says how me/little" in said.out


def test_the_tests_of_a_row_have_their_time(repo: Path, row: dict[str, object], tmp_path: Path):
    lines = str(row["test_patch"]).splitlines()
    new = [line.replace("+    from little.core import last", "+    __import__('time').sleep(60)") for line in lines]
    assert new != lines
    (slow,) = read_rows(written([row | {"test_patch": "\n".join(new)}], tmp_path / "r.jsonl"))
    begun = time.monotonic()
    with SubprocessSandbox() as sandbox, pytest.raises(BadInput, match="do not end in 3 seconds"):
        verified(slow, quick(tmp_path, repo, row_seconds=3.0), sandbox)
    assert time.monotonic() - begun < 50


def quick(folder: Path, repo: Path, **settings) -> How:
    """Without an environment of its own: the tests' own one has all that the little package needs."""
    here = Runtime(path=(str(Path(sys.executable).parent),), variables=VARIABLES)
    given = {
        "specs": recipes(recipe(folder, "*")),
        "sandbox": SubprocessSandbox,
        "runtime": lambda *_: here,
        "workers": 1,
    }
    return How(folder, {"*": [str(repo)]}, **{**given, "row_seconds": 60.0, **settings})


def test_a_file_that_is_only_renamed_is_tested(row: dict[str, object], tmp_path: Path):
    folder = little_package(tmp_path / "little")
    (folder / "little" / "core.py").write_text(SOURCE.replace("result += value", "result -= value"))
    (folder / "tests" / "test_core.py").rename(folder / "tests" / "test_old.py")
    (folder / "tests" / "test_other.py").write_text("def test_other():\n    pass\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    (folder / "little" / "core.py").write_text(SOURCE)
    patch = git(folder, "diff")
    git(folder, "checkout", "-q", ".")
    git(folder, "mv", "tests/test_old.py", "tests/test_core.py")
    (folder / "tests" / "test_other.py").write_text("def test_other():\n    assert True\n")
    test_patch = git(folder, "diff", "HEAD", "-M")
    git(folder, "reset", "-q", "--hard")
    assert "rename from" in test_patch and "+++ b/tests/test_core.py" not in test_patch
    tested = {"FAIL_TO_PASS": ["tests/test_core.py::test_total"], "base_commit": "HEAD"}
    content = row | tested | {"patch": patch.rstrip("\n"), "test_patch": test_patch.rstrip("\n")}
    (renamed,) = read_rows(written([content], tmp_path / "r.jsonl"))
    with SubprocessSandbox() as sandbox:
        assert verified(renamed, quick(tmp_path, folder), sandbox).fail_to_pass == ("tests/test_core.py::test_total",)


def test_a_clone_of_another_owner_is_read(repo: Path, row: dict[str, object], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for this
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "own settings"))
    (tmp_path / "own settings").write_text(
        f'[url "file://{repo.parent}/"]\n\tinsteadOf = short://\n'
    )  # are still the user's
    for source in (str(repo), f"file://{repo}", "short://little"):
        found = repository("me/little", str(row["base_commit"]), [source], tmp_path, no_image)
        assert found["little/core.py"].data.decode() == SOURCE


def test_a_kept_clone_is_fetched_again_where_a_commit_is_missing(tmp_path: Path):
    folder = little_package(tmp_path / "little")
    git(folder, "init", "-q")
    url = [f"file://{folder}"]

    def committed(text: str) -> str:
        (folder / "little" / "core.py").write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", text)
        return git(folder, "rev-parse", "HEAD").strip()

    for text in ("one", "two"):
        commit = committed(text)
        committed("later")  # so that it is not the end of a branch, which a server gives by its hash alone
        assert repository("me/little", commit, url, tmp_path, no_image)["little/core.py"].data == text.encode()
    git(folder, "checkout", "-q", "--detach")
    commit = committed("of a pull request, in no branch")
    git(folder, "update-ref", "refs/pull/1/head", commit)
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert b"pull" in repository("me/little", commit, url, tmp_path, no_image)["little/core.py"].data
    with pytest.raises(BadInput, match=r"(?s)file://.*not our ref 0000.*"):
        repository("me/little", "0" * 40, url, tmp_path, no_image)


def test_all_that_git_says_is_shown(tmp_path: Path, monkeypatch):
    (tmp_path / "bin").mkdir()
    words = "\n".join(["error: first of all", "fatal: at last"])
    (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\necho '{words}' >&2; exit 128\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(BadInput) as caught:
        repository("me/little", "0" * 40, ["file:///nowhere"], tmp_path, no_image)
    assert "error: first of all fatal: at last" in str(caught.value)
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nsleep 30\n")
    with pytest.raises(BadInput, match=r"out of time after 0\.2 seconds"):
        repository("me/little", "0" * 40, ["file:///nowhere"], tmp_path, no_image, 0.2)


def test_what_a_recipe_commands_is_run_with_the_environment_in_use(tmp_path: Path):
    command = 'python -c "import sys; print(sys.prefix)" > $VIRTUAL_ENV/seen; cat needs.txt > $VIRTUAL_ENV/$WORD'
    needs = Requirements(commands=(command,), variables={"WORD": "word"})
    venv = virtual_environment(needs, tmp_path, {"needs.txt": File(b"x")})
    assert (venv / "seen").read_text().strip() == str(venv) and (venv / "word").read_text() == "x"
    with pytest.raises(BadInput, match="echo why; false: it failed: why"):
        virtual_environment(Requirements(commands=("echo why; false",)), tmp_path, {})
    with pytest.raises(BadInput, match=r"sleep 30: it did not end in 0\.2 seconds"):
        _run(["bash", "-ec", "sleep 30"], "sleep 30", 0.2)


def test_what_is_held_out_is_said_and_undone(repo: Path, row: dict[str, object], tmp_path: Path):
    home, recipes = tmp_path / "home", recipe(tmp_path, "me/little", "-r needs.txt")
    named = row | {"instance_id": "me__little-2"}  # by its name it would be trained on

    def splits(name: str, content: dict[str, object], held_out: bool | None = None) -> tuple[list[str], str]:
        source = written([content], tmp_path / name)
        given = {"rows": source, "sources": {"me/little": [str(repo)]}, "recipes": recipes, "held_out": held_out}
        other = SweGym(str(home), SubprocessSandbox(), **given)
        try:
            said = other.install().splitlines()[-1]
        except BadInput as error:
            said = str(error)
        return [s for s in SPLITS if _has_tasks(other, s)], said

    assert splits("mine_lite.jsonl", named)[0] == ["train"]  # SWE-Gym-Lite and R2E-Gym-Lite are for training
    unusable = named | {"patch": row["test_patch"]}
    assert splits("SWE-bench_Verified.jsonl", unusable)[0] == []  # and yet it is held out
    found, said = splits("mine_lite.jsonl", named)
    assert found == ["test"] and "1 of them still are" in said and "SWE-bench_Verified.jsonl" in said
    assert splits("mine_lite.jsonl", named, False)[0] == ["test"]  # that is not what holds it out
    assert splits("SWE-bench_Verified.jsonl", unusable, False)[0] == []
    found, said = splits("mine_lite.jsonl", named)
    assert found == ["train"] and "not held out" in said
    found, said = splits("mine_lite.jsonl", named, True)
    assert found == ["test"] and "as --held_out says" in said
    assert splits("mine_lite.jsonl", named)[0] == ["test"]  # what was said stays
    found, said = splits("SWE-bench_Lite-test.jsonl", named)
    assert "1 of 1 held out" in said and "SWE-bench_Lite-test is a test set" in said and "--held_out false" in said
    assert splits("SWE-bench_Lite-test.jsonl", named, False)[0] == ["test"]  # mine_lite says so
    assert splits("mine_lite.jsonl", named, False)[0] == ["train"]
    another = named | {"FAIL_TO_PASS": ["tests/test_core.py::test_total"]}
    assert splits("mine_lite.jsonl", another)[0] == []  # another row by the same name
    assert "--held_out true" in splits("mine_test.jsonl", named)[1]


@pytest.mark.parametrize(
    ("source", "file", "held"),
    [
        ("hub:SWE-Gym/SWE-Gym", "data/train-00000-of-00001.parquet", False),
        ("hub:SWE-Gym/SWE-Gym-Lite", "data/train-00000-of-00001.parquet", False),
        ("hub:R2E-Gym/R2E-Gym-Lite", "data/train-00000-of-00002.parquet", False),
        ("hub:SWE-bench/SWE-bench_Lite", "data/test-00000-of-00001.parquet", True),
        ("hub:SWE-bench/SWE-bench_Lite", "data/dev-00000-of-00001.parquet", False),
        ("hub:princeton-nlp/SWE-bench", "data/train-00000-of-00001.parquet", False),
        ("hub:princeton-nlp/SWE-bench", "default/test/0000.parquet", True),
        ("hub:someone/swe-bench-verified", "data/train-00000-of-00001.parquet", False),
        ("hub:R2E-Gym/SWE-Bench-Verified", "data/test-00000-of-00001.parquet", True),
        ("hub:nebius/SWE-bench-extra", "data/train-00000-of-00001.parquet", False),
        ("hub:nebius/SWE-rebench", "data/test-00000-of-00001.parquet", None),
        ("/data/test/SWE-bench_Multilingual.jsonl", "", True),
        ("/data/tests/swebench_dev_sample.jsonl", "", False),
        ("/data/swebench.json", "", True),
        ("/data/lite.jsonl", "", False),
        ("/data/latest.jsonl", "", False),
        ("/data/my-verified.jsonl", "", None),
        ("/data/test.jsonl", "", None),
    ],
)
def test_test_sets_are_known_by_their_full_names(source: str, file: str, held: bool | None):
    path = Path(file or source)
    assert is_held_out(source, path, True) and not is_held_out(source, path, False)
    if held is None:  # the user has to say
        with pytest.raises(BadInput, match="may be that of a test set"):
            is_held_out(source, path, None)
        return
    assert is_held_out(source, path, None) == held


def test_a_part_of_a_dataset_can_be_named(row: dict[str, object], tmp_path: Path, monkeypatch):
    parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").Table
    for part in ("train", "test"):
        named = row | {"instance_id": part}
        parquet.write_table(table.from_pylist([named]), tmp_path / f"{part}-00000-of-00001.parquet")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: str(tmp_path))
    asked = partial(is_held_out, said=None)
    found = {row.instance_id: row.held_out for row in read_rows("hub:SWE-bench/SWE-bench", held_out=asked)}
    assert found == {"train": False, "test": True}
    assert [row.instance_id for row in read_rows("hub:me/mine:train", held_out=asked)] == ["train"]
    with pytest.raises(BadInput, match="Say --held_out true"):
        read_rows("hub:me/mine", held_out=asked)
    with pytest.raises(BadInput, match=r"no part 'dev'. Name one of test, train"):
        read_rows("hub:me/mine:dev", held_out=asked)


def test_a_patch_that_is_the_bug_is_where_the_agent_begins(repo: Path, tmp_path: Path):
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
    named = {"instance_id": "me__little.1.x", "repo": "swesmith/me__little.1", "problem_statement": None}
    tested = {"FAIL_TO_PASS": ["tests/test_core.py::test_last"], "PASS_TO_PASS": ["tests/test_core.py::test_total"]}
    bug = {**named, **tested, "patch": git(mirror, "diff"), "image_name": "smith/x"}
    git(mirror, "checkout", "-q", ".")
    given = {
        "rows": written([bug], tmp_path / "smith_test.jsonl"),
        "sources": {"swesmith/me__little.1": [str(mirror)]},
        "recipes": recipe(tmp_path, "swesmith/me__little.1", "-r needs.txt", "."),
        "held_out": True,
    }
    swe = SweGym(str(tmp_path / "home"), SubprocessSandbox(), **given)
    assert "1 of 1 rows can be used here" in swe.install()
    assert [split for split in SPLITS if _has_tasks(swe, split)] == ["test"]  # held out
    (task,) = swe.tasks("rows:swesmith/me__little.1", "test", 1)
    said = swe.reset(task).observation
    assert "None" not in said and "These tests fail: tests/test_core.py::test_last" in said
    swe.close()
    assert wins(swe, [task]) == 1
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
    table = recipes(None)
    found = {version: spec_of("python/mypy", version, table) for version in ("1.10", "1.7", "1.6", "0.920", "0.900b1")}
    assert [spec and spec.python for spec in found.values()] == ["3.12", "3.12", "3.11", "3.9", "3.9"]
    for specs in SPECS.values():
        numbers = [[int(part) for part in spec.since.split(".")] for spec in specs]
        assert numbers == sorted(numbers)


def test_what_nobody_says_how_to_install_is_not_guessed():
    assert spec_of("some/other", "2", recipes(None)) is None


RECIPES = """
Some/Other:
  1.10:
    python: 3.10
    packages: ["'numpy<2' cython"]
    commands: [make init]
    test: FLAG=1 python -m pytest -n0
    variables: {TZ: 0}
  "1.9": {}
python/mypy:
  "1.7": {python: "3.13", test: "tox -e {plugin}"}
"*":
  "0": {python: "3.11"}
"""


def test_recipes_are_merged_over_the_table(tmp_path: Path):
    (tmp_path / "r.yaml").write_text(RECIPES)
    table = recipes(str(tmp_path / "r.yaml"))
    spec = spec_of("some/other", "1.11", table)
    assert spec and (spec.since, spec.python, spec.install, spec.commands) == (
        "1.10",
        "3.10",
        ("'numpy<2' cython",),
        ("make init",),
    )
    assert spec.test == f"FLAG=1 python -m {PYTEST} -n0" and spec.variables == {"TZ": "0"}
    assert (older := spec_of("some/other", "1.9.5", table)) and older.test == PYTEST and older.since == "1.9"
    assert spec_of("some/other", "1.8", table) is None  # older than all that is said
    mypy = [spec_of("python/mypy", version, table) for version in ("1.7", "1.6")]
    assert [each and each.python for each in mypy] == ["3.13", "3.11"] and mypy[0] and mypy[0].test == "tox -e {plugin}"
    others = spec_of("any/other", "", table)
    assert others and others.python == "3.11"
    (tmp_path / "r.json").write_text('{"a/b": {"1.10": {"python": "3.9"}}}')
    found = spec_of("a/b", "1.10", recipes(str(tmp_path / "r.json")))
    assert found and found.since == "1.10" and found.python == "3.9"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it names no repositories"),
        ("a: {'1': {}}", "no owner/name"),
        ("a/b: {}", "a/b has no versions"),
        ("a/b: {'1': x}", "a/b 1 says nothing"),
        ("a/b: {'1': {pip: x}}", "a/b 1 has a field 'pip'"),
        ("a/b: {'1': {packages: x}}", "packages of a/b 1 is no list of texts"),
        ("a/b: {'1': {test: make check}}", "test of a/b 1 does not call pytest"),
        ("a/b: {'1': {variables: [x]}}", "variables of a/b 1"),
        ("a: b: c", "cannot be read"),
    ],
)
def test_a_recipe_that_says_something_else_is_refused(tmp_path: Path, text: str, words: str):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(BadInput, match=words):
        SweGym(recipes=str(tmp_path / "r.yaml"))
    with pytest.raises(BadInput, match=r"gone.yaml: it cannot be read"):
        SweGym(recipes=str(tmp_path / "gone.yaml"))


REAL = "marshmallow-code__marshmallow-1343"


@pytest.mark.slow
def test_a_real_row_holds_with_its_release_and_is_won_by_its_fix(tmp_path: Path):
    sample = text_lines(shared_data("swe/swebench_dev_sample.jsonl"))
    (line,) = (line for line in sample if json.loads(line)["instance_id"] == REAL)
    (tmp_path / "row.jsonl").write_text(line + "\n")
    sources = {"marshmallow-code/marshmallow": ["sdist:marshmallow==2.20.0"]}
    swe = SweGym(str(tmp_path / "home"), rows=str(tmp_path / "row.jsonl"), sources=sources)
    assert swe.install().startswith(f"{tmp_path / 'row.jsonl'}: 1 of 1 rows can be used here")
    (split,) = (split for split in ("train", "sft", "validation", "test") if holds(swe, split))
    assert wins(swe, swe.tasks("rows", split, 1)) == 1
    assert not list((tmp_path / "home" / "venvs").glob("*/lib/python3*/site-packages/marshmallow"))
    swe.close()


def holds(swe: SweGym, split: str) -> bool:
    try:
        return len(swe.tasks("rows", split, 1)) == 1
    except BadInput:
        return False
