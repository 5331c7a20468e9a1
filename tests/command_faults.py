"""One-line faults in what commands read and refuse; a part of `tests.faults`."""

from __future__ import annotations

from tests.fault import Fault

COMMANDS = ("tests/integration/test_command_line.py", "-k", "not abbreviation")
ABBREVIATED = ("tests/integration/test_command_line.py", "-k", "abbreviation")

COMMAND_FAULTS = [
    Fault("keep the knobs of another algorithm", "command_line.py",
          "if name not in accepted:", "if name is None:", COMMANDS),
    Fault("forget the shared settings when the algorithm changes", "command_line.py",
          "return {\"init_args\": {name: value for name, value in given.items() if name in accepted}}",
          "return {\"init_args\": {}}", COMMANDS),
    Fault("leave the null of a flag out", "command_line.py", "there[names[-1]] = None", "pass", COMMANDS),
    Fault("let a file win over a flag before it", "command_line.py",
          "return [f\"--config={files[0]}\", *_text(others)], []", "return list(args), []", COMMANDS),
    Fault("read 1e-3 as text", "yaml_text.py", "found.setdefault(first, []).append((_FLOAT, _NUMBER))", "pass", COMMANDS),
    Fault("take abbreviations for settings", "cli.py",
          'super().__init__(*args, **{"allow_abbrev": False, **kwargs})', "super().__init__(*args, **kwargs)", ABBREVIATED),
]  # fmt: skip
