"""Making TextWorld games.

A set lives in ``folder/spec/split``: for each game ``SEED.z8`` and ``SEED.json``, both needed to play, and a row in
``index.jsonl``. Rows are only ever appended and files appear whole: a killed generation goes on where it was. Of several
processes that want games, one makes them and the others wait.
``python -m lit_agents.environment.textworld.generate SPEC FOLDER SEED...`` is one worker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from filelock import FileLock

from lit_agents.environment.textworld.challenges import EXAMPLES, ChallengeGames, challenge, game_options
from lit_agents.environment.textworld.index import Row, digest, note, pair, read_index, stamp
from lit_agents.errors import BadInput

MANY = 8
"""So many games that all have a fault are taken for what is wrong with the sizes asked for."""
SCRATCH = ".making-"
SERIAL = 18
"""Where six digits in the header of a story file are its date (Z-Machine Standards, 11.1); no checksum covers them."""


@dataclass(frozen=True)
class CustomGames:
    """``tw-make custom --world-size W --nb-objects O --quest-length Q --seed S``."""

    rooms: int
    objects: int
    quest: int

    def make(self, seed: int, path: str) -> None:
        """Write the pair of files, ``path`` being the ``.z8``; the options are those of ``tw-make``."""
        import textworld

        options = game_options(seed, path)
        options.nb_rooms, options.nb_objects, options.nb_parallel_quests = self.rooms, self.objects, 1
        chaining = options.chaining
        chaining.min_breadth, chaining.max_breadth, chaining.min_depth = 1, 5, 1
        chaining.min_length = chaining.max_length = chaining.max_depth = self.quest
        textworld.make(options)


@dataclass(frozen=True)
class SimpleGames:
    """``tw-make tw-simple --rewards R --goal detailed --seed S``, for tests with ``--test``.

    All of them are one house, with 36 walkthroughs in all, so games of other seeds are no unseen games. The generator's
    own test games ask for food that no other game names.
    """

    rewards: str
    test: bool

    def make(self, seed: int, path: str) -> None:
        """As above."""
        from textworld.challenges.tw_simple import simple
        from textworld.generator import compile_game

        options = game_options(seed, path)
        compile_game(simple.make({"rewards": self.rewards, "goal": "detailed", "test": self.test}, options), options)


def game_maker(spec: str, split: str) -> CustomGames | SimpleGames | ChallengeGames:
    """The family a spec names, as it is made for a split.

    Raises:
        BadInput: it names none.
    """
    if match := re.fullmatch(r"w([1-9]\d?)-o([1-9]\d{0,2})-q([1-9]\d?)", spec):
        return CustomGames(*map(int, match.groups()))
    if match := re.fullmatch(r"tw-simple-(sparse|balanced|dense)", spec):
        return SimpleGames(match[1], test=split == "test")
    if found := challenge(spec, split):
        return found
    raise BadInput(
        "spec",
        f"{spec!r} names no TextWorld games.",
        f"Write w{{rooms}}-o{{objects}}-q{{quest length}} such as w2-o3-q4, tw-simple-sparse, -balanced or -dense, {EXAMPLES}, "
        "or games for your own.",
    )


def games(spec: str, folder: Path, seeds: Iterable[int], count: int, workers: int) -> list[Row]:
    """The first ``count`` games, in the order of their seeds, that their own walkthrough wins, made where they are not there.

    About one in a hundred is left out: in a room with "chest" and "Canadian chest" the generator's "take key from chest"
    is answered by a question, so nothing could demonstrate the game and no expert would be its ceiling.

    Raises:
        BadInput: there are not so many seeds, or the generator cannot make such games.
    """
    given = list(seeds)
    while True:
        known, sound, unknown = read_index(folder), list[Row](), list[int]()
        for seed in given:
            if len(sound) + len(unknown) == count:
                break
            if seed not in known:
                unknown.append(seed)
            elif not known[seed].fault:
                sound.append(known[seed])
        if not unknown:
            break
        generate(spec, folder, unknown, workers)
        asked = set(unknown)
        made = [row for seed, row in read_index(folder).items() if seed in asked]
        if len(made) >= MANY and all(row.fault for row in made):
            raise BadInput("spec", f"no game of {spec} can be used: {made[0].fault}.", "Choose other sizes.")
    if len(sound) < count:
        raise BadInput("count", f"there are {len(sound)} such games, not {count}.", "Ask for fewer.")
    return sound


def generate(spec: str, folder: Path, seeds: Sequence[int], workers: int) -> None:
    """Make those games of these seeds that are not there, each worker a process, with a progress bar.

    Raises:
        BadInput: the generator cannot make one of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock"):
        for left in folder.glob(f"{SCRATCH}*"):  # by a generation that was killed
            shutil.rmtree(left, ignore_errors=True)
        known = read_index(folder)
        if missing := [seed for seed in seeds if seed not in known]:
            _generate(spec, folder, missing, workers)


def _generate(spec: str, folder: Path, seeds: Sequence[int], workers: int) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    shares = [share for k in range(workers) if (share := list(seeds[k::workers]))]
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder, ignore_cleanup_errors=True) as scratch,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(len(shares)) as threads,
    ):
        bar = progress.add_task(f"making {spec}", total=len(seeds))
        running = [_start_worker(spec, folder, share, scratch) for share in shares]
        try:
            for done in [threads.submit(_follow, worker, spec, lambda: progress.advance(bar)) for worker in running]:
                done.result()
        finally:
            for worker in running:
                if worker.poll() is None:
                    os.killpg(worker.pid, signal.SIGKILL)  # with the compiler it runs
                worker.wait()


def _start_worker(spec: str, folder: Path, seeds: Sequence[int], scratch: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(map(os.path.abspath, sys.path))
    # The order inside tw-simple's .json follows string hashes; fixed, so that a game's sha256 is the same anywhere.
    settings = {"PYTHONHASHSEED": "0", "TMPDIR": scratch, "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lit_agents.environment.textworld.generate", spec, str(folder), *map(str, seeds)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
        start_new_session=True,  # Ctrl-C reaches the caller alone, which ends the workers
    )


def _follow(worker: subprocess.Popen[str], spec: str, tick: Callable[[], None]) -> None:
    assert worker.stdout is not None  # a pipe
    with worker.stdout:
        for line in worker.stdout:
            report = json.loads(line)
            if report["error"]:
                reason = f"seed {report['seed']} of {spec} cannot be made: {report['error']}."
                raise BadInput("spec", reason, "Choose other sizes, or free some space if the disk is full.")
            tick()
    if worker.wait() != 0:
        raise BadInput("spec", f"a process making {spec} ended with code {worker.returncode}.", "See what it printed.")


def make_one(spec: str, folder: Path, seed: int) -> None:
    """Make a game, win it, and only then give it its name and its row; one that is not won has a row that says so."""
    with tempfile.TemporaryDirectory() as scratch:
        game = Path(scratch) / f"{seed}.z8"
        game_maker(spec, folder.name).make(seed, str(game))
        walkthrough = json.loads(game.with_suffix(".json").read_text())["metadata"]["walkthrough"]
        won, rewards = _play(game, walkthrough)
        if not won:
            note(folder, Row(seed, "", (), len(walkthrough), rewards, "its walkthrough does not win"))
            return
        with game.open("r+b") as story:  # the compiler wrote the day: the same game must have the same sha256 tomorrow
            story.seek(SERIAL)
            story.write(b"000000")
        made, kept = pair(Path(scratch), seed), pair(folder, seed)
        row = Row(seed, digest(made), [stamp(path) for path in made], len(walkthrough), rewards)
        for source, target in zip(made, kept, strict=True):
            os.replace(source, target)
    note(folder, row)


def _play(game: Path, walkthrough: Sequence[str]) -> tuple[bool, int]:
    """Whether the walkthrough wins, and how many times the score rises on it."""
    import textworld

    env = textworld.start(str(game), request_infos=textworld.EnvInfos(score=True, won=True))
    env.reset()
    scores = [0, *(env.step(command)[1] for command in walkthrough)]
    won = bool(env.state["won"])
    env.close()
    return won, sum(after > before for before, after in pairwise(scores))


def main(spec: str, folder: str, *seeds: str) -> None:
    """One worker: a line of JSON on standard output for each game."""
    for seed in map(int, seeds):
        error = ""
        try:
            make_one(spec, Path(folder), seed)
        except Exception as reason:
            error = f"{type(reason).__name__}: {reason}"
        print(json.dumps({"seed": seed, "error": error}), flush=True)  # ends the worker if nobody listens any more


if __name__ == "__main__":
    main(*sys.argv[1:])
