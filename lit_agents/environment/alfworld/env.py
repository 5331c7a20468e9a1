"""ALFWorld: household tasks in text, of six types, in the official splits.

``official-all`` names all official games, ``official-heat``, ``official-heat+cool+clean+pick`` those of some types, in turns;
their tests are in rooms that training does not have (valid_unseen), those of ``seen-...`` in rooms that it has (valid_seen).
The types are pick (and place), look (at an object in the light of a lamp), clean, heat, cool (and place) and two (of a kind, and
place). ``generated-...`` are games made from the alfworld package alone, types in turns; ``mixed-...`` are the official ones
first, then generated ones.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from lit_agents.environment.alfworld.archive import Row, human_goals, unpack
from lit_agents.environment.alfworld.expert import handcoded_walkthrough
from lit_agents.environment.alfworld.game import Game
from lit_agents.environment.alfworld.pddl_cache import planner_version
from lit_agents.environment.alfworld.splits import OFFICIAL, listed
from lit_agents.environment.alfworld.subgoals import goal_in
from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.errors import BadInput
from lit_agents.system.cache import cache_folder
from lit_agents.system.download import check_sha256, fetched
from lit_agents.types import Task

PROMPT = """\
You are in a house and have a task. Reply with one command, such as: go to desk 1
Commands: go to, open, close, take .. from, move .. to, use, heat .. with, clean .. with, cool .. with, examine, inventory, look
Task: {goal}
{state}"""
CUE = "\nCommand:"
OBSERVATION_FORMAT = "1"
"""To be raised with any change of what the agent is shown."""
GRAMMAR = "last line that is not empty, one of the game's commands; 1"


class AlfWorld(TextEnvironment):
    """ALFWorld's text games. Needs the extra ``[alfworld]``.

    Args:
        folder: where games are; by default ``alfworld`` in the package's cache.
        source: archive of the official games, a path or URL, or a list of them, for
            ``python -m lit_agents.tasks alfworld --source ...``.
        sha256: of the archive, if it is one, and to be checked.
        goal: the game's own sentence, or one that a person wrote for this task (always the same one).
        admissible: tell the possible commands in every observation, or not (as in the paper).
        score: what rises: at the win alone; or with every condition of the goal, and on the way to it, that holds when more of
            them hold than ever before, so that undoing and redoing pays nothing. Both are 1 in all at the win.
        expert: who demonstrates: the planner, which knows where everything is, on a short way; or the package's handcoded expert,
            which has to look for it. After a detour, and where that one gives up, the planner takes over.
        workers: processes that make games; by default one per core.
    """

    repeatable = True

    def __init__(
        self,
        folder: str | None = None,
        source: str | list[str] | None = None,
        sha256: str = "",
        goal: Literal["template", "human"] = "template",
        admissible: Literal["hidden", "shown"] = "hidden",
        score: Literal["win", "goal"] = "win",
        expert: Literal["planner", "handcoded"] = "planner",
        workers: int | None = None,
    ) -> None:
        self._folder, self._source, self._sha256, self._workers = folder, source, sha256, workers
        self._goal, self._admissible, self._score, self._expert = goal, admissible, score, expert
        self._game: Game | None = None
        self._shown: list[str] | None = None

    @property
    def folder(self) -> Path:
        """Where games are: ``official`` and ``generated``."""
        return Path(self._folder).expanduser() if self._folder else cache_folder("alfworld")

    @property
    def official(self) -> Path:
        """Where the official games are."""
        return self.folder / OFFICIAL

    def install(self) -> str:
        """Unpack ``source``; how many games there are then."""
        if not self._source:
            return ""
        sources = [self._source] if isinstance(self._source, str) else self._source
        if self._sha256 and len(sources) > 1:
            raise BadInput("sha256", "it is of one archive, and there are several.", "Name one archive at a time.")
        archives = [self._archive(named) for named in sources]
        try:
            rows = unpack(archives, self.official)
        except BadInput as error:
            for named, archive in zip(sources, archives, strict=True):
                if "://" in named and error.where == str(archive):
                    archive.unlink()  # or it would be there for the next try
            raise
        counts = {
            split: sum(r.split == split and not r.fault for r in rows) for split in dict.fromkeys(r.split for r in rows)
        }
        said = ", ".join(f"{count} of {split}" for split, count in counts.items())
        faults = [f"{row.split}/{row.name}: {row.fault}" for row in rows if row.fault]
        left_out = f"; {len(faults)} left out, e.g. {faults[0]}" if faults else ""
        return f"{self.official}: {said}{left_out}"

    def _archive(self, named: str) -> Path:
        if "://" in named:
            return fetched(named, cache_folder("downloads"), self._sha256)
        path = Path(named).expanduser()
        if not path.is_file():
            there = "it is a folder" if path.is_dir() else "there is no such file"
            raise BadInput(named, f"{there}.", "Name an archive (tar or zip), or its URL.")
        check_sha256(path, self._sha256, named)
        return path

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """Official games in a fixed random order, types in turns if they are named; generated ones by seed, types in turns."""
        _must_be_installed()
        found = listed(self.folder, spec, split, count, self._workers)
        return [self._task(spec, split, path, row) for path, row in found]

    def _task(self, spec: str, split: str, path: Path, row: Row) -> Task:
        if not path.is_file():
            raise BadInput(str(path), "it is in the index, but not there.", "Unpack or make the games again.")
        rewards = 2 if self._score == "goal" else 1  # at least
        labels = {"type": row.kind, "scene": row.scene, "source": row.split, "plan_length": str(row.steps)}
        return Task(spec, row.name, split, str(path), self._hash(row.sha256, path), rewards, labels)

    def _hash(self, of_game: str, path: Path) -> str:
        """Of all that an agent is told: a person's sentence is in another file than the game."""
        if self._goal == "template":
            return of_game
        return hashlib.sha256(f"{of_game}\0{_written(path)}".encode()).hexdigest()

    def reset(self, task: Task) -> Start:
        """Read the game, unless it is the one that was played last, and begin it."""
        path = Path(task.path)
        if self._game is None or self._game.path != path:
            if not path.is_file():
                raise BadInput(str(path), "there is no such game.", "Unpack the games again.")
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if task.sha256 and self._hash(found, path) != task.sha256:
                raise BadInput(str(path), "it is not as it was when it was indexed.", "Unpack or make the games again.")
            self._game, self._shown = Game(path), None
        first = self._game.start()
        self._aim = goal_in(self._game.game["pddl_problem"], task.path) if self._score == "goal" else None
        self._nothing = self._best = 0 if self._aim is None else self._aim.done(self._game.state.facts)
        self._over = False
        state = first.partition("\n\n")[2].partition("\n\nYour task is to:")[0]
        goal = self._game.goal if self._goal == "template" else _written(path)
        return Start(PROMPT.format(goal=goal, state=state) + self._cue())

    def step(self, action: str) -> Transition:
        """Play the last line of the action that is not empty."""
        game = self._playing()
        if self._over:
            raise RuntimeError("the episode is over")
        lines = [" ".join(line.split()) for line in action.splitlines() if line.strip()]
        command = lines[-1].removesuffix(".") if lines else ""
        told, possible = game.step(command)
        self._over = game.won
        score = float(game.won)
        if self._aim is not None and not game.won:
            self._best = max(self._best, self._aim.done(game.state.facts)) if possible else self._best
            score = min((self._best - self._nothing) / (self._aim.steps - self._nothing), 1 - 1 / self._aim.steps)
        observation = " ".join(told.split()) + ("" if game.won else self._cue())
        return Transition(observation, score, game.won, won=game.won, valid=possible)

    def _cue(self) -> str:
        if self._admissible == "hidden":
            return CUE
        commands = [c for c in self._playing().commands if c != "help"]
        return f"\nPossible: {', '.join(commands)}{CUE}"

    def close(self) -> None:
        """Forget the game; the planner's library stays with the process."""
        self._game = None

    def expert_action(self) -> str | None:
        """A walkthrough's next command while it is kept to, the stored one's or the handcoded expert's; then the planner's."""
        game = self._playing()
        if self._expert == "handcoded":
            if self._shown is None:
                played = list(game.played)
                self._shown = handcoded_walkthrough(game)
                for command in played:
                    game.step(command)
            done = len(game.played)
            if done < len(self._shown) and game.played == self._shown[:done]:
                return self._shown[done]
        plan = game.plan()
        return plan[0] if plan else None

    def admissible_actions(self) -> list[str]:
        """All commands that the game lists now."""
        return self._playing().commands

    def fingerprint(self) -> Mapping[str, str]:
        """What of the package, the goal, the score and the observations makes results comparable."""
        _must_be_installed()
        for name in ("textworld.envs.pddl", "fast_downward", "alfworld.agents.utils.misc"):
            importlib.import_module(name)  # once for all sessions
        return {
            "alfworld": version("alfworld"),
            "textworld": version("textworld"),
            "planner": planner_version(),
            "observation": OBSERVATION_FORMAT,
            "commands": GRAMMAR,
            "admissible": self._admissible,
            "goal": self._goal,
            "score": self._score,
        }

    def _playing(self) -> Game:
        if self._game is None:
            raise RuntimeError("no episode is under way")
        return self._game


def _written(path: Path) -> str:
    """One of the sentences that people wrote for a game's task, always the same one."""
    written = human_goals(path)
    if not written:
        raise BadInput(str(path), "no person wrote a goal for it.", 'Set goal to "template".')
    return written[int.from_bytes(hashlib.sha256(path.parent.name.encode()).digest()[:4], "big") % len(written)]


def _must_be_installed() -> None:
    """Looked for only, where tasks are made; imported where games are played, and by `fingerprint`."""
    for name in ("alfworld", "fast_downward"):
        found = None
        with suppress(ImportError):
            found = find_spec(name)
        if found is None:
            raise BadInput(
                name, "it is not installed.", 'Run: pip install "lit_agents[alfworld]" (its planner is GPL-3).'
            )
