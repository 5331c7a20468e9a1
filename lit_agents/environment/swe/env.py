"""Repairing a Python repository by commands of the shell, until ``submit``; what was done is then tested on a fresh copy.

Tasks: see `catalogue`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path

from lit_agents.environment.base import Start, TextEnvironment, Transition
from lit_agents.environment.swe.actions import GRAMMAR, SUBMIT, TOOLS, observed, parsed, prelude
from lit_agents.environment.swe.dataset.checkout import IMAGE
from lit_agents.environment.swe.dataset.held_out import HeldOut, in_words, is_held_out
from lit_agents.environment.swe.dataset.recipes import recipes as read_recipes
from lit_agents.environment.swe.dataset.rows import IMAGES, read_rows
from lit_agents.environment.swe.dataset.validate import How
from lit_agents.environment.swe.dataset.validated_rows import summary, verify_all
from lit_agents.environment.swe.dataset.venv import PATIENCE, runtime
from lit_agents.environment.swe.expert import next_action
from lit_agents.environment.swe.file_tree import File, Tree, packed, unpacked
from lit_agents.environment.swe.generate.default_packages import PACKAGES
from lit_agents.environment.swe.generate.generator import NEEDS, Factory
from lit_agents.environment.swe.generate.pypi import Package
from lit_agents.environment.swe.generated_tests import KeptTests, TestWriter
from lit_agents.environment.swe.grading import submitted
from lit_agents.environment.swe.splits import SPLITS, generated_tasks, row_tasks
from lit_agents.environment.swe.task import Problem, Requirements
from lit_agents.errors import BadInput
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.select import working
from lit_agents.sandbox.types import Runtime
from lit_agents.system.cache import cache_folder
from lit_agents.system.processes import makers
from lit_agents.types import Task

PROMPT = """You repair a Python repository in the current folder. Reply with one command of bash. Besides bash there are:
view FILE [LINE or NAME]: show lines
search TEXT: find lines
edit FILE FIRST[-LAST] <<'E': put new lines, up to a line E, in their place
submit: when the repair is done
"""


class SweGym(TextEnvironment):
    """Repositories with something to repair.

    An episode is won if ``submit`` finds every test passing that should, and lost if not. What is not submitted is not
    tested. On that turn the signals are ``resolved``, ``passed`` (which part of the tests that count pass, 0 to 1),
    ``passed_before``, ``repaired`` (of those that failed), ``kept`` (of those that passed), ``changed`` (there is a change),
    ``tests_ended`` (in time) and ``cheated`` (the change alters how it is tested; the shares are 0 then).

    Args:
        folder: where tasks, repositories and virtual environments are; by default ``swe`` in the package's cache.
        sandbox: in what the commands run; by default the first that works here, of containers and bubblewrap.
        packages: by split (``train``, ``validation``, ``test``), the releases that tasks are made of, each like
            ``toolz==1.0.0``; by default those that come with this package.
        generate: how many tasks ``python -m lit_agents.tasks swe`` makes, over all splits.
        rows: files or datasets whose rows ``python -m lit_agents.tasks swe`` verifies.
        sources: by ``owner/name``, or ``*`` for all others, where a row's files come from, see `repositories.repository`.
        images: who publishes the images of rows that name none.
        recipes: a file that says how repositories are installed and tested without an image, see `recipes`.
        held_out: whether the ``rows`` serve the split ``test`` alone; by default those of known test sets, see `held_out`.
        row_seconds: what all test runs of a row may take together when it is verified, and each command that fetches or
            installs something for it.
        help_level: how much the statement of a generated task says: 0 that tests fail, 1 the file too, 2 the function,
            3 the tests, 4 the kind of bug.
        written_tests: who writes more tests, whose share that passes is the signal ``written_passed``; nobody by default.
        observation: characters that are shown of what a command prints.
        command_timeout: seconds that a command has.
        episode_seconds: when its commands have run for so many, an episode is truncated; what it waits is not counted.
        workers: how many candidates or rows are tried at once; by default one per core.
    """

    def __init__(
        self,
        folder: str | None = None,
        sandbox: Sandbox | None = None,
        packages: dict[str, list[str]] | None = None,
        generate: int = 0,
        rows: str | list[str] | None = None,
        sources: dict[str, list[str]] | None = None,
        images: str = IMAGES,
        recipes: str | None = None,
        held_out: bool | None = None,
        row_seconds: float = PATIENCE,
        help_level: int = 3,
        written_tests: TestWriter | None = None,
        observation: int = 4000,
        command_timeout: float = 30.0,
        episode_seconds: float = 1800.0,
        workers: int | None = None,
    ) -> None:
        if not 0 <= help_level <= 4:
            raise BadInput("help_level", f"it is {help_level}.", "Choose one of 0 to 4.")
        if row_seconds <= 0:
            raise BadInput("row_seconds", f"{row_seconds:g} is not above 0.", "Give it a positive value.")
        self._specs, self._held_out, self._row_seconds = read_recipes(recipes), held_out, row_seconds
        self._folder, self._given, self._packages = folder, sandbox, packages or PACKAGES
        named = [_name_of(text) for texts in self._packages.values() for text in texts]
        if twice := sorted({text for text in named if named.count(text) > 1}):
            raise BadInput("packages", f"{twice[0]} is named twice.", "A package serves one split.")
        self._generate, self._help, self._workers = generate, help_level, makers(workers)
        self._rows, self._images = [rows] if isinstance(rows, str) else rows or [], images
        self._writer, self._sources = written_tests, sources or {"*": [IMAGE, "https://github.com/{repo}.git"]}
        self._observation, self._timeout, self._seconds = observation, command_timeout, episode_seconds
        self._sandbox: Sandbox | None = None
        self._playing: _Playing | None = None

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return Path(self._folder).expanduser() if self._folder else cache_folder("swe")

    def install(self) -> str:
        """Make ``generate`` tasks, each package's share; verify the rows."""
        said = []
        if self._generate:
            splits = ("train", "validation", "test")
            releases = [Package.parsed(text) for split in splits for text in self._packages.get(split, [])]
            share = -(-self._generate // len(releases))
            found = {release.title: len(self._factory().problems(release, share)) for release in releases}
            listed = ", ".join(f"{count} of {title}" for title, count in found.items())
            said.append(f"{self.folder}: {sum(found.values())} tasks of {len(found)} packages: {listed}")
        usable = 0
        for source in self._rows:
            count, report = self._verify(source)
            usable += count
            said.append(report)
        if self._rows and not usable:
            print("\n".join(said))
            raise BadInput("rows", "none of them can be used here.", "See above why.")
        return "\n".join(said)

    def _verify(self, source: str) -> tuple[int, str]:
        """How many rows can be used, and what there is to say."""
        rows = read_rows(source, self._images, partial(is_held_out, said=self._held_out))
        holders = HeldOut(self.folder / "held_out.json").updated(source, rows, undo=self._held_out is False)
        needed = partial(self._runtime, seconds=self._row_seconds)
        how = How(self.folder, self._sources, self._specs, self._chosen.copy, needed, self._row_seconds, self._workers)
        verdicts = verify_all(rows, how, holders)
        usable = sum(not verdict.reason for verdict in verdicts)
        return usable, f"{summary(source, verdicts)}\n  {in_words(source, rows, self._held_out, holders)}"

    def tasks(self, spec: str, split: str, count: int) -> list[Task]:
        """See `catalogue`."""
        if split not in SPLITS:
            raise BadInput("split", f"there is no {split!r}.", f"Choose one of {', '.join(SPLITS)}.")
        if spec == "rows" or spec.startswith("rows:"):
            return row_tasks(spec, self.folder / "rows", split, count)
        return generated_tasks(spec, split, count, self._packages, self._factory())

    def reset(self, task: Task) -> Start:
        """The repository as it is at first, in a sandbox that is kept from one episode to the next."""
        path = Path(task.path)
        if self._playing is None or self._playing.path != path:
            problem = Problem.load(path)
            before = problem.before(self.folder / "trees")
            self._playing = _Playing(path, problem, before, packed(before))
        playing = self._playing
        self._opened(playing.problem.requirements, playing.before).reset(playing.archive)
        playing.last, playing.spent = "", 0.0
        statements = playing.problem.statements
        return Start(PROMPT + statements[min(self._help, len(statements) - 1)])

    def step(self, action: str) -> Transition:
        """Run a command, or test what was done."""
        playing, sandbox = self._under_way()
        playing.last = action
        command, wrong = parsed(action)
        if wrong:
            return Transition(wrong, 0.0, valid=False)
        if command == SUBMIT:
            writer = KeptTests(self._writer, self.folder / "written") if self._writer else None
            return submitted(playing.problem, playing.before, sandbox, writer)
        done = sandbox.run(command, self._timeout, cap=4 * self._observation)
        playing.spent += done.seconds
        late = playing.spent > self._seconds
        shown = observed(done, self._observation, self._timeout)
        return Transition(shown, 0.0, truncated=late, valid=done.code not in (126, 127))

    def expert_action(self) -> str | None:
        """Towards the fix that is known."""
        playing, sandbox = self._under_way()
        paths = [f"./{path}" for path in playing.problem.fix]
        return next_action(unpacked(sandbox.get(paths)), playing.problem.fix, playing.last)

    def close(self) -> None:
        """The sandbox, too."""
        if self._sandbox:
            self._sandbox.close()
        self._sandbox = self._playing = None

    def fingerprint(self) -> Mapping[str, str]:
        """What is told, allowed and shown, and in what commands run."""
        return {
            "commands": GRAMMAR,
            "admissible": "hidden",
            "prompt": hashlib.sha256((PROMPT + prelude(Path("."))).encode()).hexdigest()[:16],
            "help_level": str(self._help),
            "observation": f"{self._observation} characters",
            "seconds": f"{self._timeout:g} of a command, {self._seconds:g} of all commands",
            "written_tests": type(self._writer).__name__ if self._writer else "",
            "sandbox": type(self._chosen).__name__,
        }

    @cached_property
    def _chosen(self) -> Sandbox:
        """Looked for once: a run whose engine goes away fails, and is not continued in a sandbox of another kind."""
        if self._given and (trouble := self._given.trouble()):
            raise BadInput(
                "sandbox", f"the {type(self._given).__name__} does not work here: {trouble}", "Name another one."
            )
        return self._given or working()

    def _opened(self, needs: Requirements, tree: Tree) -> Sandbox:
        """A sandbox with what a repository needs; the one there is, if it has that."""
        sandbox = self._sandbox or self._chosen.copy()
        wanted = self._runtime(sandbox, needs, tree)
        if self._sandbox is None or sandbox.runtime != wanted:
            self._sandbox = None  # until it is open
            sandbox.open(wanted)
            self._sandbox = sandbox
        return sandbox

    def _runtime(self, sandbox: Sandbox, needs: Requirements, tree: Tree, seconds: float = PATIENCE) -> Runtime:
        found = runtime(needs, self.folder / "venvs", sandbox.RUNS_IMAGES, tree, seconds)
        before = f"{prelude()}\n{found.prelude}".strip()
        return Runtime((*found.shown, str(TOOLS)), found.path, found.variables, before, found.image)

    def _factory(self) -> Factory:
        def opened() -> Sandbox:
            sandbox = self._chosen.copy()
            sandbox.open(self._runtime(sandbox, NEEDS, {}))
            return sandbox

        return Factory(self.folder, opened, self._workers)

    def _under_way(self) -> tuple[_Playing, Sandbox]:
        if self._playing is None or self._sandbox is None:
            raise RuntimeError("no episode is under way")
        return self._playing, self._sandbox


def _name_of(package: str) -> str:
    """What a package is called in whatever version and spelling; of a folder or archive, where it is."""
    if "/" in package:
        return str(Path(package).expanduser().resolve())
    return re.sub(r"[-_.]+", "-", package.partition("==")[0].strip().lower())


class _Playing:
    """The task of the episode that is under way, kept for the next one of its group."""

    def __init__(self, path: Path, problem: Problem, before: dict[str, File], archive: bytes) -> None:
        self.path, self.problem, self.before, self.archive = path, problem, before, archive
        self.last, self.spent = "", 0.0
