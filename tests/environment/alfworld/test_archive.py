"""Archives of ALFWorld games: unpacked whole or not at all, and nowhere else."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lit_agents.environment.alfworld.archive import GAME, TRAJECTORY, read_index, unpack
from lit_agents.environment.alfworld.env import AlfWorld
from lit_agents.errors import BadInput
from lit_agents.system import download
from lit_agents.system.download import fetched
from lit_agents.tasks import main

GRAMMAR = 'Your task is to: put a {0} on desk.\naction PutObject {{ template :: "move {{o}} to {{r}}"; }}'
PICK, COOL = (
    "pick_and_place_simple-Pen-None-Desk-301/trial_1",
    "pick_cool_then_place_in_recep-Egg-None-Fridge-2/trial_2",
)


def game(thing: str, **changes: object) -> bytes:
    whole = {
        "pddl_domain": "d",
        "grammar": GRAMMAR.format(thing),
        "pddl_problem": thing,
        "solvable": True,
        "walkthrough": ["a", "b"],
    }
    return json.dumps(whole | changes).encode()


CONTENT = {
    f"data/json_2.1.1/train/{PICK}/{GAME}": game("pen"),
    f"data/json_2.1.1/train/{PICK}/{TRAJECTORY}": b'{"turk_annotations": {"anns": [{"task_desc": "Put it there."}]}}',
    f"data/json_2.1.1/valid_unseen/{COOL}/{GAME}": game("egg"),
    f"data/json_2.1.1/train/{PICK}/video.mp4": b"0" * 100,
    "data/logic/alfred.pddl": b"no game",
}


def packed(path: Path, content: dict[str, bytes], mode: str = "w:xz") -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, mode) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "mode"), [("a.tar.xz", "w:xz"), ("a.tar.gz", "w:gz"), ("a.tar", "w"), ("a.zip", "")])
def test_games_are_unpacked_and_indexed_and_nothing_else(tmp_path: Path, name: str, mode: str):
    rows = unpack([packed(tmp_path / name, CONTENT, mode)], tmp_path / "games")
    assert files(tmp_path / "games") == {
        f"train/{PICK}/{GAME}", f"train/{PICK}/{TRAJECTORY}", f"valid_unseen/{COOL}/{GAME}", "index.jsonl"
    }  # fmt: skip
    assert read_index(tmp_path / "games") == rows
    assert [(r.split, r.kind, r.scene, r.steps, r.goal, r.fault) for r in rows] == [
        ("train", "pick", "301", 2, "put a pen on desk", ""), ("valid_unseen", "cool", "2", 2, "put a egg on desk", "")
    ]  # fmt: skip
    assert rows[0].sha256 == hashlib.sha256(game("pen")).hexdigest()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_games_and_their_sentences_may_come_in_archives_of_their_own_and_later(tmp_path: Path):
    parts = [{k: v for k, v in CONTENT.items() if k.endswith(ending)} for ending in (GAME, TRAJECTORY)]
    first, second = (packed(tmp_path / f"{i}.zip", part) for i, part in enumerate(parts))
    unpack([first], tmp_path / "games")
    rows = unpack([second], tmp_path / "games")
    assert len(rows) == 2 and f"train/{PICK}/{TRAJECTORY}" in files(tmp_path / "games")
    changed = {name: game("book") for name in CONTENT if name.endswith(f"trial_1/{GAME}")}
    rows = unpack([packed(tmp_path / "new.zip", changed)], tmp_path / "games")
    assert {row.goal for row in rows} == {"put a book on desk", "put a egg on desk"}


def test_nothing_of_an_archive_lands_outside_of_the_folder(tmp_path: Path):
    here = tmp_path / "inner" / "games"
    evil = {
        f"../../train/{PICK}/{GAME}": game("pen"), "/etc/passwd": b"x", f"train/../{PICK}/{GAME}": game("pen"),
        f"train/a/../../{GAME}": game("pen"), f"train/{PICK}/../{GAME}": game("x"), f"x/train/{PICK}/{GAME}": game("pen"),
    }  # fmt: skip
    path = packed(tmp_path / "a.tar", evil, "w")
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo(f"train/{COOL}/{GAME}")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    unpack([path], here)
    assert files(here) == {f"train/{PICK}/{GAME}", "index.jsonl"}
    assert files(tmp_path) == {f"inner/games/{name}" for name in files(here)} | {"a.tar", "inner/games.lock"}


@pytest.mark.parametrize("name", ["a.tar.xz", "a.tar.gz", "a.zip"])
def test_an_archive_that_is_cut_off_is_refused_and_nothing_is_lost(tmp_path: Path, name: str):
    many = {f"train/{PICK}{i}/{GAME}": game(os.urandom(200).hex()) for i in range(60)}
    mode = "w:gz" if name.endswith("gz") else "w:xz"
    whole, games = packed(tmp_path / name, many, mode), tmp_path / "games"
    unpack([packed(tmp_path / "first.zip", CONTENT)], games)
    before = files(games)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(BadInput, match="cannot be unpacked") as refusal:
        unpack([whole], games)
    assert refusal.value.where == str(whole) and files(games) == before and len(read_index(games)) == 2


def test_a_plain_tar_that_ends_between_two_files_is_cut_off_too(tmp_path: Path):
    many = {f"train/{PICK}{i}/{GAME}": game(str(i)) for i in range(4)}
    path = packed(tmp_path / "a.tar", many, "w")
    with tarfile.open(path) as tar:
        third = tar.getmembers()[2]
    whole = path.read_bytes()
    for end in (third.offset, third.offset + 100):  # nothing, and half a header
        path.write_bytes(whole[:end])
        with pytest.raises(BadInput, match="is cut off"):
            unpack([path], tmp_path / "games")
        assert not (tmp_path / "games").exists()
    path.write_bytes(whole)
    assert len(unpack([path], tmp_path / "games")) == 4


def test_the_folder_may_be_a_link_to_a_disk_without_links(tmp_path: Path, monkeypatch):
    def refused(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    (tmp_path / "disk" / "games").mkdir(parents=True)
    (tmp_path / "games").symlink_to(tmp_path / "disk" / "games")
    monkeypatch.setattr(os, "link", refused)
    parts = [{k: v for k, v in CONTENT.items() if k.endswith(ending)} for ending in (GAME, TRAJECTORY)]
    for number, part in enumerate(parts):
        unpack([packed(tmp_path / f"{number}.zip", part)], tmp_path / "games")
    assert (tmp_path / "games").is_symlink() and len(files(tmp_path / "disk" / "games")) == 4


def test_an_archive_without_games_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"holds no game\.tw-pddl"):
        unpack([packed(tmp_path / "a.zip", {"readme": b"hello"})], tmp_path / "games")
    with pytest.raises(BadInput, match="alone, and there is no game"):
        unpack([packed(tmp_path / "b.zip", {f"train/{PICK}/{TRAJECTORY}": b"{}"})], tmp_path / "games")
    assert not (tmp_path / "games").exists()


def test_games_that_cannot_be_played_are_in_the_index_with_their_fault(tmp_path: Path):
    content = {
        f"train/{PICK}/{GAME}": game("pen"),
        f"train/{PICK}old/{GAME}": game("pen", grammar='Your task is to: x.\ntemplate :: "put {o} in/on {r}"'),
        f"train/{PICK}no/{GAME}": game("pen", solvable=False),
        f"train/{PICK}cut/{GAME}": game("pen")[:40],
        f"train/fry_something-Egg-None-Pan-3/t/{GAME}": game("pen"),
        f"train/foo/t/{GAME}": game("pen"),
        f"train/{PICK.replace('-', '-Sliced', 1)}/{GAME}": game("pen"),
        f"train/{PICK}null/{GAME}": game("pen", grammar=None),
        f"train/{PICK}three/{GAME}": game("pen", walkthrough=3),
    }
    faults = {row.name: row.fault for row in unpack([packed(tmp_path / "a.zip", content)], tmp_path / "games")}
    assert faults[PICK] == ""
    assert "has to be cut" in faults[PICK.replace("-", "-Sliced", 1)]
    for ending, words in {"old": "old format", "no": "cannot be won", "cut": "cannot be read"}.items():
        assert words in faults[PICK + ending]
    for name in (f"{PICK}null", f"{PICK}three"):
        assert "something else where its texts or its walkthrough should be" in faults[name]
    for name in ("fry_something-Egg-None-Pan-3/t", "foo/t"):
        assert "none of pick_and_place_simple" in faults[name]


def test_an_index_that_is_damaged_is_named(tmp_path: Path):
    unpack([packed(tmp_path / "a.zip", CONTENT)], tmp_path / "games")
    index = tmp_path / "games" / "index.jsonl"
    index.write_text(index.read_text()[:-20])
    with pytest.raises(BadInput, match="not as it was written"):
        read_index(tmp_path / "games")


# the command, and downloads


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one content, with ranges; hangs up after some bytes of the first answer if told to."""

    content, cut, asked = b"", 0, list[str]()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        type(self).asked.append(asked)
        first = int(asked.removeprefix("bytes=").rstrip("-") or 0) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(self.content) - first))
        self.end_headers()
        last, type(self).cut = self.cut or len(self.content), 0
        self.wfile.write(self.content[first:last])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Server.content, Server.cut, Server.asked = packed(tmp_path / "served.zip", CONTENT).read_bytes(), 0, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/games.zip"
        running.shutdown()


def test_a_download_goes_on_where_it_was_cut_off(server: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(download, "PIECE", 64)
    Server.cut = 300
    with pytest.raises(BadInput, match="300 bytes of it are there") as refusal:
        fetched(server, tmp_path / "d")
    assert refusal.value.where == server and "goes on there" in refusal.value.way_out
    path = fetched(server, tmp_path / "d", hashlib.sha256(Server.content).hexdigest())
    assert path.read_bytes() == Server.content and Server.asked == ["", "bytes=300-"]
    assert fetched(server, tmp_path / "d") == path and len(Server.asked) == 2  # once is enough


def test_a_download_that_is_not_what_was_meant_is_refused_and_not_kept(server: str, tmp_path: Path):
    with pytest.raises(BadInput, match="its sha256 is"):
        fetched(server, tmp_path / "d", "0" * 64)
    assert fetched(server, tmp_path / "d").read_bytes() == Server.content and len(Server.asked) == 2


def test_a_page_in_the_place_of_an_archive_is_not_kept(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sound, Server.content = Server.content, b"<html>Please log in</html>"
    command = ["alfworld", "--source", server, "--folder", str(tmp_path / "games")]
    assert main(command) == 2
    assert "it cannot be unpacked" in capsys.readouterr().err
    Server.content = sound
    assert main(command) == 0
    assert "1 of train, 1 of valid_unseen" in capsys.readouterr().out


def test_the_command_fetches_from_a_path_or_a_url(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    archive = str(tmp_path / "served.zip")
    for number, source in enumerate((server, archive, f"[{archive}]")):
        folder = str(tmp_path / f"games{number}")
        assert main(["alfworld", "--source", source, "--folder", folder]) == 0
        assert "1 of train, 1 of valid_unseen" in capsys.readouterr().out
        assert len(read_index(Path(folder) / "official")) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "[nowhere.zip]"], "nowhere.zip: there is no such file."),
        (["--source", "[http://127.0.0.1:9/a.zip]"], "it cannot be downloaded"),
        (["--source", "http://127.0.0.1:9/a b.zip"], "it cannot be downloaded"),
        ([], "both are needed"),
        (["--spec", "generated-all"], "both are needed"),
        (["--source", "/tmp"], "/tmp: it is a folder."),
        (["--spec", "generated-pick", "--count", "1", "--folder", "/proc/version"], "cannot be a folder"),
    ],
)
def test_what_cannot_be_fetched_is_one_paragraph(arguments, words, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("LIT_AGENTS_CACHE", str(tmp_path))
    assert main(["alfworld", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_hash_is_of_one_archive(tmp_path: Path, monkeypatch):
    archive = packed(tmp_path / "a.zip", CONTENT)
    with pytest.raises(BadInput, match="there are several"):
        AlfWorld(str(tmp_path), [str(archive)] * 2, sha256="0").install()
    with pytest.raises(BadInput, match="its sha256 is"):
        AlfWorld(str(tmp_path), [str(archive)], sha256="0" * 64).install()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("./a.zip", "~/a.zip", f"{tmp_path}//a.zip"):  # it is the user's, however it is named
        with pytest.raises(BadInput, match="its sha256 is"):
            AlfWorld(str(tmp_path), named, sha256="0" * 64).install()
    assert archive.is_file() and not (tmp_path / "official").exists()
