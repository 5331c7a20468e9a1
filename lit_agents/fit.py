"""Train: ``python -m lit_agents.fit --config conf/textworld/quickstart.yaml``.

Measures the untouched model on the test tasks, imitates the expert if ``sft`` is set, measures, learns by RL, measures the
checkpoint that was best on the validation tasks, and leaves everything in a run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_agents.cli import AgentCLI, SupervisedStage, run_command
from lit_agents.errors import BadInput
