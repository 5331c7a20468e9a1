"""How the repositories of SWE-Gym are installed and tested without their images, by version.

What needs conda, Java or a build (pandas, MONAI, modin, bokeh, hydra) is left to the images, or to a file of the user's, see
`recipes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lit_agents.environment.swe.pytest_runner import PYTEST


@dataclass(frozen=True)
class Spec:
    """For versions from one on, up to the next spec's.

    Attributes:
        since: the first version.
        python: version.
        install: arguments of pip, one call each, in the repository's folder.
        test: how its tests are run; the test files follow.
        variables: of the environment.
        commands: of the shell, after that, in the repository's folder, with the virtual environment in use.
    """

    since: str
    python: str
    install: tuple[str, ...]
    test: str = PYTEST
    variables: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()


OTHERS = "*"
"""Stands for all repositories that are not named."""
IN_IMAGE = Spec("0", "", ())
"""For a repository whose image has all it needs."""
Specs = Mapping[str, Sequence[Spec]]
"""By ``owner/name`` in lower case, from the first version on."""
SPECS: dict[str, tuple[Spec, ...]] = {
    "getmoto/moto": (
        Spec("0", "3.11", (".[all,server]", "pytest sure freezegun"), variables={"AWS_DEFAULT_REGION": "us-east-1"}),
    ),
    "python/mypy": (  # its settings ask for workers, which would not find what notes the results
        Spec("0", "3.9", ("-r test-requirements.txt", "."), f"{PYTEST} -n0"),
        Spec("0.940", "3.10", ("-r test-requirements.txt", "."), f"{PYTEST} -n0"),
        Spec("1.0", "3.11", ("-r test-requirements.txt", "."), f"{PYTEST} -n0"),
        Spec("1.7", "3.12", ("-r test-requirements.txt", "."), f"{PYTEST} -n0"),
    ),
    "dask/dask": (Spec("0", "3.9", ("'.[array]'", "pytest 'numpy<1.24' 'pandas<1.5'"), f"{PYTEST} --color=no"),),
    "pydantic/pydantic": (Spec("0", "3.8", (".", "pytest pytest-mock 'hypothesis[dates]' dirty-equals")),),
    "iterative/dvc": (
        Spec("0", "3.8", ("'.[tests]'",)),
        Spec("1.0", "3.9", ("'.[tests]'",)),
        Spec("3.4", "3.10", ("'.[tests]'",)),
    ),
    "marshmallow-code/marshmallow": (Spec("0", "3.9", (".", "pytest pytz simplejson python-dateutil")),),
    "pydicom/pydicom": (Spec("0", "3.9", (".", "pytest 'numpy<1.24'")),),
}


def spec_of(repo: str, version: str, specs: Specs) -> Spec | None:
    """The last one that a version has reached; None where nobody says how that is installed."""
    found = specs.get(repo.lower(), specs.get(OTHERS, ()))
    return next((spec for spec in reversed(found) if number_of(version) >= number_of(spec.since)), None)


def number_of(version: str) -> tuple[int, ...]:
    """``1.10`` is more than ``1.9``; of a part like ``0b3`` the digits it begins with count, of any other none."""
    digits = (re.match(r"\d*", part) for part in version.lower().removeprefix("v").split("."))
    return tuple(int(found[0] or 0) if found else 0 for found in digits)
