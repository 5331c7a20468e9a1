"""What the parser of configurations says, in the form a person is meant to read."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from pydoc import locate

from lit_agents.errors import BadInput

_PIECES = re.compile(
    "|".join(
        (
            r'[Kk]ey "(?P<key>[^"]+)"',
            r"class_path '(?P<kind>[^']+)'",
            r"Group '(?P<group>[^']*)' does not accept option '(?P<member>[^']*)'",
            r"Option '(?P<option>[^']*)' is not accepted",
            r"^[Uu]nrecognized arguments: (?P<flag>[^\s=]+)",
        )
    )
)
_NOISE = (
    "Does not validate", "Subtypes:", "Errors:", "Expected a <class 'NoneType'>", "Problem with", "Parser key",
    "Given value type", "Given value: {", "Given value: NestedArg",
)  # fmt: skip


def refusal(message: str, command: str) -> BadInput:
    """The parser's message as one paragraph: the whole path of the key, and only the reasons that concern it."""
    path, between, unknown = "", "", False
    for piece in _PIECES.finditer(message):
        if kind := piece["kind"]:
            between = "." if is_dataclass(locate(kind)) else ".init_args."
            continue
        name = piece["key"] or piece["option"] or piece["flag"] or f"{piece['group']}.{piece['member']}"
        unknown = piece["key"] is None
        path, between = path + between + name, "."
    lines = [line.strip(" -") for line in re.sub(r'^Parser key "[^"]+":', "", message).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(_NOISE)]
    text = re.sub(r"a <class '(?:[\w.]*\.)?(\w+)'>", r"\1", "; ".join(reasons)).rstrip(".;: ")
    if unknown:
        text = "there is no such argument" if path.startswith("-") else "there is no such key"
    way_out = f"See python -m lit_agents.{command} --help, or add --print_config to see what is configured."
    return BadInput(path or "configuration", f"{text[:600]}.", way_out)


def wrapped(error: BaseException | None) -> BadInput | None:
    """The refusal that the parser has wrapped into a message of its own."""
    while error is not None and not isinstance(error, BadInput):
        error = error.__cause__ or error.__context__
    return error
