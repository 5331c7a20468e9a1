"""The one error a person is meant to read: which file or flag, why it cannot work, and the way out."""

from __future__ import annotations

import signal


class BadInput(ValueError):
    """Something the user gave cannot work. Commands print it as one paragraph, without a traceback, and exit with 2.

    Args:
        where: the file or the flag as the user typed it, e.g. ``data.group_size`` or ``games/seed7.z8``.
        reason: what is wrong with it.
        way_out: what to do instead.
    """

    def __init__(self, where: str, reason: str, way_out: str) -> None:
        super().__init__(where, reason, way_out)  # all three in args, so that it survives pickling between processes
        self.where, self.reason, self.way_out = where, reason, way_out

    def __str__(self) -> str:
        """One paragraph, whatever a world, a file or a user put into it: nothing in it can steer a terminal."""
        return printable(f"{self.where}: {self.reason} {self.way_out}")


def refuse_outside(where: str, **limits: tuple[float | None, float | None]) -> None:
    """Refuse numbers below 0 or above a limit, each by its name.

    Args:
        limits: by name, the number and the most it may be; None is no number, or no limit.

    Raises:
        BadInput: as ``where.name``.
    """
    for name, (value, most) in limits.items():
        if value is not None and (value < 0 or (most is not None and value > most)):
            range_ = "0 or more" if most is None else f"from 0 to {most:g}"
            raise BadInput(f"{where}.{name}", f"{value} is not {range_}.", "Set it to a number that is.")


def refuse_seed(where: str, seed: int) -> None:
    """Refuse a seed that NumPy does not take.

    Raises:
        BadInput: it is negative or too large.
    """
    if not 0 <= seed < 2**32:
        raise BadInput(where, f"{seed} is not from 0 to {2**32 - 1}.", "Choose a seed that is.")


def refuse_name(where: str, name: str) -> None:
    """Refuse what cannot be the name of a folder.

    Raises:
        BadInput: it is empty, has a slash, or leads elsewhere.
    """
    if not name.strip() or "/" in name or "\0" in name or name in (".", ".."):
        reason = f"{name!r} cannot be the name of a folder."
        raise BadInput(where, reason, "Choose one without a slash; --run or --folder says where it lies.")


def printable(text: str) -> str:
    """Text from outside on one line: white space is single spaces, and what is no character to be seen is escaped."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


TERMINATED = 143
"""Exit code after SIGTERM, as in a shell."""


class Stopped(KeyboardInterrupt):
    """SIGTERM, or SIGUSR1 under SLURM. Code that cleans up after Ctrl-C also cleans up after it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.requeues, self.code = number == signal.SIGUSR1, TERMINATED
