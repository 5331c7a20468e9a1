"""YAML as the parser of configurations reads it: ``1e-3`` is a number, a date is text."""

from __future__ import annotations

import re
from typing import Any

import yaml

_FLOAT = "tag:yaml.org,2002:float"
_TIME = "tag:yaml.org,2002:timestamp"
_NUMBER = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
"""YAML 1.2's numbers. YAML 1.1, which PyYAML reads, wants ``1.0e-3`` and takes ``1e-3`` for text."""


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found = {
        first: [(tag, pattern) for tag, pattern in pairs if tag not in (_FLOAT, _TIME)]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+0123456789.":
        found.setdefault(first, []).append((_FLOAT, _NUMBER))
    return found


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()


def read_yaml(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def write_yaml(content: Any) -> str:
    """A YAML document that `read_yaml` and the parser of configurations read as it was; text such as 1e-3 is quoted."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
