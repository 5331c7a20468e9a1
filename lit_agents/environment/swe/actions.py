"""From an agent's text to one command of the shell, and from what that printed to an observation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from lit_agents.sandbox.types import Completed

TOOLS = Path(__file__).parent / "tools"
FENCED = re.compile(r"```[ \t]*(?:bash|sh|shell)?[ \t]*\n(.*?)\n?```", re.DOTALL)
CALLED = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
SUBMIT = "submit"
LONGEST = 100_000
"""Bytes of a command, its quotes counted as they are passed on: the system takes 131,072 as one argument."""
GRAMMAR = "one command of bash: a fenced block, a tool call, or the whole text; submit ends"


def prelude(tools: Path = TOOLS) -> str:
    """Shell that defines what an agent finds besides bash.

    Args:
        tools: the folder of the scripts, which may have any name.
    """
    view, edit = (shlex.quote(str(tools / name)) for name in ("view.py", "edit.py"))
    return f"""view() {{ python3 -I {view} "$@"; }}
edit() {{ python3 -I {edit} "$@"; }}
search() {{ grep -rnI --include='*.py' -m 5 -e "$@" . | cut -c 1-160 | head -n 20; }}
submit() {{ echo "submit has to be the whole command"; }}"""


def parsed(action: str) -> tuple[str, str]:
    """The command of an action, and what is wrong with it if it has none.

    A fenced block counts, or a tool call with a ``command``; where there is neither, the whole text does.
    """
    blocks = FENCED.findall(action)
    for call in CALLED.findall(action):
        try:
            blocks.append(str(json.loads(call)["arguments"]["command"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return "", "The tool call has no arguments with a command."
    if len(blocks) > 1:
        return "", f"Give one command, not {len(blocks)}."
    if not blocks and ("```" in action or "<tool_call>" in action):
        return "", "The command is not closed."
    command = (blocks[0] if blocks else action).replace("\x00", "").encode(errors="replace").decode().strip()
    if len(command.encode()) + 4 * command.count("'") > LONGEST:
        return "", "The command is too long."
    return command, "" if command else "There is no command."


def observed(done: Completed, cap: int, timeout: float) -> str:
    """What an agent is shown of a command: its output, shortened in the middle, and how it ended if not well.

    Args:
        cap: characters.
        timeout: seconds that it had.
    """
    text = done.output.decode(errors="replace").strip("\n")
    lost = done.lost + max(0, len(text) - cap)
    if lost:
        half = cap // 2
        text = f"{text[:half]}\n({lost} characters left out)\n{text[-half:]}"
    if done.timed_out:
        text += f"\n(stopped after {timeout:g} seconds)"
    elif done.out_of_memory:
        text += "\n(stopped: out of memory)"
    elif done.code:
        text += f"\n(exit code {done.code})"
    return text.strip("\n") or "(no output)"
