"""What is given on a command line: files laid over one another, then settings, in a form that the parser can read.

The parser of configurations (jsonargparse 4.53) mixes the settings of two files, or of a file and another class, where a class
has dataclasses among its arguments: LoRA's settings end up in two forms at once. So files and changes of class are merged here,
as plain mappings, and the parser sees one file.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from lit_agents.errors import BadInput
from lit_agents.system.yaml_text import read_yaml, write_yaml

CONFIG = ("--config", "-c")
MODEL = ("--model", "--model.class_path")
NULL = ("null", "~")
_FILES = (".yaml", ".yml", ".json")
_SPEC = {"class_path", "init_args", "dict_kwargs"}


class ExactParser(ArgumentParser):
    """Takes flags by their whole names alone: what an abbreviation means changes when another flag is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})


def files_first(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with at most one file, in front; other settings come after it, so they win wherever they stand.

    ``--model CLASS`` and settings that become null are laid over the files too.

    Returns:
        Arguments for the parser, and a sentence for every setting of a file that the chosen class does not have.

    Raises:
        BadInput: a file is not there, or is no YAML.
    """
    items = _items(args)
    files = [value for name, value in items if name in CONFIG and value is not None]
    if not files:
        return list(args), []
    chosen = [value for name, value in items if name in MODEL and value is not None]
    others = [item for item in items if item[0] not in (*CONFIG, *MODEL)]
    config: dict[str, Any] = {}
    left_out: list[str] = []
    for overlay in [*map(_content, files), *({"model": _model(value)} for value in chosen)]:
        config = laid_over(config, overlay, left_out)
    nulls = [name for name, value in others if value in NULL and _set_to_null(config, name[2:].split("."))]
    for name in nulls:
        last = max(i for i, item in enumerate(others) if item[0] == name and item[1] in NULL)
        others = [item for i, item in enumerate(others) if i > last or not f"{item[0]}.".startswith(f"{name}.")]
    if len(files) == 1 and not chosen and not nulls:  # the parser names the file itself
        return [f"--config={files[0]}", *_text(others)], []
    return [f"--config={write_yaml(config)}", *_text(others)], left_out


def laid_over(
    below: Mapping[str, Any], above: Mapping[str, Any], left_out: list[str], place: str = ""
) -> dict[str, Any]:
    """Both; where they disagree, what is above. Another class keeps the settings that it has too.

    Args:
        left_out: gets a sentence for each setting that the other class does not have.
        place: of the two in the configuration, with a point at its end.
    """
    result = dict(below)
    for name, value in above.items():
        there, here = result.get(name), f"{place}{name}"
        if isinstance(value, str) and isinstance(there, Mapping) and _SPEC & set(there) and not value.endswith(_FILES):
            value = {"class_path": value}
        if isinstance(there, str) and isinstance(value, Mapping):
            there = {"class_path": there}
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            if "class_path" in there and value and not _SPEC & set(value):
                value = {"init_args": value}  # the class is the one before
            if value.get("class_path", there.get("class_path")) != there.get("class_path"):
                there = _of_class(there, value["class_path"], left_out, here)
            value = laid_over(there, value, left_out, f"{here}.")
        result[name] = value
    return result


def _of_class(settings: Mapping[str, Any], path: Any, left_out: list[str], place: str) -> dict[str, Any]:
    """The arguments of one class that another one takes too; its class path is not in them."""
    given = settings.get("init_args") or {}
    accepted = _accepted(path)
    if accepted is None:
        return {"init_args": dict(given)}
    for name in given:
        if name not in accepted:
            kind = str(path).rpartition(".")[2]
            text = " ".join(write_yaml(given[name]).replace("\n...", "").split())
            left_out.append(f"{place}.{name}: {text} is left out: {kind} has no such setting.")
    return {"init_args": {name: value for name, value in given.items() if name in accepted}}


def _accepted(path: Any) -> set[str] | None:
    """Names of the arguments of a class or function; None if it cannot be found, which the parser then says."""
    module, _, name = str(path).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return None
    if not inspect.isclass(kind):
        return set(inspect.signature(kind).parameters) if callable(kind) else None
    names: set[str] = set()
    for base in kind.__mro__[:-1]:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return names - {"self"} - set(getattr(kind, "refuses", ()))


def _items(args: Sequence[str]) -> list[tuple[str, str | None]]:
    """Flags with their values; a flag without one, or a value without a flag, has None."""
    items: list[tuple[str, str | None]] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("-") or equals:
            items.append((name, value) if word.startswith("-") else (word, None))
        elif rest and not rest[0].startswith("--"):
            items.append((word, rest.pop(0)))
        else:
            items.append((word, None))
    return items


def _text(items: Sequence[tuple[str, str | None]]) -> list[str]:
    return [name if value is None else f"{name}={value}" for name, value in items]


def _content(file: str) -> dict[str, Any]:
    """Of a file, or of YAML that is given in its place."""
    try:
        is_file = Path(file).is_file()
    except OSError:  # longer than a name can be
        is_file = False
    if not is_file and ("\n" not in file and ":" not in file):
        raise BadInput(f"--config {file}", "there is no such file.", "Paths begin where the command is called.")
    where = f"--config {file}" if is_file else "--config"
    try:
        content = read_yaml(Path(file).read_text(encoding="utf-8") if is_file else file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = f"it cannot be read ({' '.join(str(error).split())[:300]})."
        raise BadInput(where, reason, "Give a YAML file of settings.") from error
    if not isinstance(content, Mapping):
        raise BadInput(where, "it holds no settings.", "Give a YAML file of settings.")
    return dict(content)


def _model(value: str) -> Any:
    """A class path, or YAML in its place."""
    try:
        content = read_yaml(value)
    except yaml.YAMLError:
        return value
    return content if isinstance(content, Mapping) else value


def _set_to_null(config: dict[str, Any], names: Sequence[str]) -> bool:
    """Set a place of a mapping that is there to null; False if it is not there, and the parser then decides."""
    there: Any = config
    for name in names[:-1]:
        there = _inside(there, name)
        there = there.get(name) if isinstance(there, dict) else None
    there = _inside(there, names[-1])
    if isinstance(there, dict):
        there[names[-1]] = None
    return isinstance(there, dict)


def _inside(there: Any, name: str) -> Any:
    """The arguments of a class, where a name is one of them."""
    return there.get("init_args") if isinstance(there, dict) and "class_path" in there and name not in _SPEC else there
