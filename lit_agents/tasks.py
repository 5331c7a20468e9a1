"""Make and check a set of tasks: ``python -m lit_agents.tasks textworld --spec w2-o3-q4 --split train --count 500``.

The first argument is a module of `lit_agents.environment` that holds one environment, or the class path of any other;
the environment's own arguments are flags too. What must be fetched first is fetched, with --spec or without:
``python -m lit_agents.tasks alfworld --source PATH_OR_URL``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from lit_agents.environment.task_sets import TURNS, environment_class, make_tasks
from lit_agents.errors import BadInput
from lit_agents.run.cli_errors import wrapped
from lit_agents.run.overrides import ExactParser

PLAYED = 10  # tasks of a set that the expert plays


def _instantiated(parser: ArgumentParser, parsed: Namespace) -> dict[str, Any]:
    """The arguments as values; whatever is a class path is made into an instance, with its own arguments, as `fit` does."""
    try:
        return dict(vars(parser.instantiate(parsed)))
    except ValueError as error:
        if meant := wrapped(error):
            raise meant from error
        raise


def main(args: Sequence[str] | None = None) -> int:
    """The command; 2 is its exit code if something given cannot work."""
    given = list(sys.argv[1:] if args is None else args)
    name = given[0] if given and not given[0].startswith("-") else ""
    parser = ExactParser(prog=f"python -m lit_agents.tasks {name or 'ENVIRONMENT'}", description=__doc__)
    parser.add_argument("--spec", type=str | None, default=None, help="family of tasks, e.g. w2-o3-q4")
    parser.add_argument("--split", default="train", help="train, sft, validation or test")
    parser.add_argument("--count", type=PositiveInt | None, default=None, help="how many tasks, from the first one on")
    parser.add_argument("--played", type=NonNegativeInt, default=PLAYED, help="how many of them the expert plays")
    parser.add_argument(
        "--always", type=str | None, default=None, help="what is said instead at every turn, for a floor"
    )
    parser.add_argument("--turns", type=PositiveInt, default=TURNS, help="actions that it has for each")
    try:
        if not name:
            parser.print_help()
            return 0 if "--help" in given or "-h" in given else 2
        kind = environment_class(name)
        parser.add_class_arguments(kind)
        options = _instantiated(parser, parser.parse_args(given[1:]))
        spec, count = options.pop("spec"), options.pop("count")
        how = {key: options.pop(key) for key in ("split", "played", "turns", "always")}
        environment = kind(**options)
        if installed := environment.install():
            print(installed)
        if spec is not None and count is not None:
            print(make_tasks(environment, spec, count=count, **how))
        elif spec is not None or count is not None or not installed:
            raise BadInput(
                "--spec and --count", "both are needed to name tasks.", "For instance --spec w2-o3-q4 --count 100."
            )
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
