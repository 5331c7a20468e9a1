"""Which sandbox is taken where none is named."""

from __future__ import annotations

import logging

from lit_agents.errors import BadInput
from lit_agents.sandbox.base import Sandbox
from lit_agents.sandbox.bubblewrap import BubblewrapSandbox
from lit_agents.sandbox.docker import DockerSandbox


def working() -> Sandbox:
    """The first that works on this machine: containers, then bubblewrap; never the one that protects from nothing.

    Raises:
        BadInput: neither works.
    """
    troubles = []
    for kind in (DockerSandbox, BubblewrapSandbox):
        sandbox = kind()
        trouble = sandbox.trouble()
        if not trouble:
            logging.getLogger(__name__).info("commands run in a %s", kind.__name__)
            return sandbox
        troubles.append(f"{kind.__name__}: {trouble}")
    raise BadInput(
        "sandbox",
        f"none works here ({'; '.join(troubles)}).",
        "Start an engine, install bubblewrap, or name SubprocessSandbox if you trust all that will be run.",
    )
