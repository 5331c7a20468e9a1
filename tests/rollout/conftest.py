"""Tiny models run on one thread, as in the tests of the policy."""

from __future__ import annotations

from tests.policy.conftest import one_thread

__all__ = ["one_thread"]
