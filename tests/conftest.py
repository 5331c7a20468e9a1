"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and then interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
