"""Session processes for the pool: a light helper process that forks them, and the loop each of them runs.

The helper is a fresh interpreter, so nothing of the caller's (``__main__``, threads, CUDA context) gets into a session.
It imports the environment once; a fork of it takes milliseconds and shares its memory. `Helper` is the caller's end of
it, ``python -m lit_agents.environment.pool.worker FD`` the other. Elsewhere than on Linux, a session that hangs while the
helper is killed would be left over.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

from lit_agents.environment.base import TextEnvironment
from lit_agents.environment.checker import admissible_fault, expert_fault, start_fault, transition_fault
from lit_agents.errors import BadInput
from lit_agents.system.processes import end_with_parent

HEADER = struct.Struct("!Q")  # length of the pickle that follows
ORDER = struct.Struct("!cqd")  # what the helper is to do: code, process id, seconds of grace
REPLY = struct.Struct("!q")  # process id, or exit status as `os.waitpid` gives it; negative: an error number
UNKNOWN_STATUS = -1
WAY_OUT = "The class must be importable by its full path in a fresh interpreter and picklable before its first reset."
QUESTIONS = {
    "reset": start_fault,
    "step": transition_fault,
    "expert_action": expert_fault,
    "admissible_actions": admissible_fault,
}
"""What a session may be asked, with the check of its answer."""


class Helper:
    """The caller's end: starts the helper, has sessions forked and ended.

    Args:
        environment: sent to the helper as a pickle.
        hints: whether sessions will be asked for the expert's or the possible actions; see `prepare_hints`.

    Raises:
        BadInput: the environment cannot be pickled, or cannot be built in another process.
    """

    def __init__(self, environment: TextEnvironment, hints: bool = False) -> None:
        self._name = f"{type(environment).__module__}.{type(environment).__qualname__}"
        try:
            payload = pickle.dumps((environment, hints))
        except Exception as error:
            raise BadInput(self._name, f"it cannot be pickled ({error}).", WAY_OUT) from error
        self._socket, theirs = socket.socketpair()
        paths = [os.path.abspath(path) for path in sys.path]
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # many sessions, few cores
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lit_agents.environment.pool.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a world prints belongs in the log, not in the caller's output
                env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C reaches the caller alone
            )
        try:
            send(self._socket, payload)
            problem = pickle.loads(receive(self._socket))
            if problem:
                raise problem if isinstance(problem, BadInput) else BadInput(self._name, problem, WAY_OUT)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise BadInput(self._name, "its process ended at once; see what it printed.", WAY_OUT) from error
            raise

    def fork(self) -> tuple[int, socket.socket]:
        """A new session: its process id and a connection to it.

        Raises:
            OSError: the helper is gone, or the system refuses another process.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                socket.send_fds(self._socket, [ORDER.pack(b"f", 0, 0.0)], [theirs.fileno()])
            pid = self._reply()
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
        except BaseException:
            ours.close()
            raise
        return pid, ours

    def end(self, pid: int, grace: float) -> str:
        """Wait ``grace`` seconds for a session to exit, then kill it with all it started; says how it ended."""
        try:
            self._socket.sendall(ORDER.pack(b"e", pid, grace))
            status = self._reply()
        except OSError:
            return "the helper process that held it is gone"
        if os.WIFSIGNALED(status):
            return f"killed by signal {os.WTERMSIG(status)}"
        return f"exit code {os.WEXITSTATUS(status)}" if os.WIFEXITED(status) else "unknown exit status"

    def close(self) -> None:
        """End the helper and whatever it still holds; wait for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # heard even where a forked copy of this process holds it open
        self._socket.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _reply(self) -> int:
        return int(REPLY.unpack(_exactly(self._socket, REPLY.size))[0])


def send(connection: socket.socket, payload: bytes) -> None:
    """One message: its length, then itself."""
    connection.sendall(HEADER.pack(len(payload)) + payload)


def receive(connection: socket.socket) -> bytes:
    """The next message.

    Raises:
        ConnectionError: the other end is closed.
    """
    (size,) = HEADER.unpack(_exactly(connection, HEADER.size))
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 16))
        if not part:
            raise ConnectionError("the other process is gone")
        data += part
    return bytes(data)


def main(descriptor: int) -> None:
    """The helper: import the environment, then fork and end sessions as told, until the caller is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)  # a process a world starts must not keep the connection open
    problem: str | BadInput = ""
    try:
        sent: tuple[TextEnvironment, bool] = pickle.loads(receive(control))
        environment, hints = sent
        environment.fingerprint()  # imports what the versions are asked of, once for all sessions
        if hints:
            environment.prepare_hints()
    except BadInput as error:
        problem = error
    except Exception as error:
        problem = f"it cannot be built in a process of its own ({type(error).__name__}: {error})."
    send(control, pickle.dumps(problem))
    if problem:
        return
    gc.collect()
    gc.freeze()  # the collector writes to what it visits; untouched pages stay shared with the sessions
    children: set[int] = set()
    with contextlib.suppress(ConnectionError):
        while True:
            _obey(control, environment, children)
    deadline = time.monotonic() + 3.0
    for pid in children:  # the caller is gone, so their connections are closed and they are ending by themselves
        _end(pid, deadline - time.monotonic())


def _obey(control: socket.socket, environment: TextEnvironment, children: set[int]) -> None:
    order, descriptors, _, _ = socket.recv_fds(control, ORDER.size, 1)
    if not order:
        raise ConnectionError("the caller is gone")
    order += _exactly(control, ORDER.size - len(order))
    code, pid, grace = ORDER.unpack(order)
    if code == b"e":
        status = _end(pid, grace) if pid in children else UNKNOWN_STATUS
        children.discard(pid)
        control.sendall(REPLY.pack(status))
        return
    helper = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        control.close()
        _session(environment, socket.socket(fileno=descriptors[0]), helper)
    os.close(descriptors[0])
    if pid > 0:
        children.add(pid)
    control.sendall(REPLY.pack(pid))


def _end(pid: int, grace: float) -> int:
    """Only the parent of a process can name it safely: its id is not given to another before it is waited for here."""
    kill_at, give_up_at = time.monotonic() + grace, time.monotonic() + grace + 2.0
    killed = False
    while time.monotonic() < give_up_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done and not killed and time.monotonic() >= kill_at:
            killed = True
            os.kill(pid, signal.SIGKILL)
            continue
        if done:
            with contextlib.suppress(OSError):  # what it started and left behind is in its group
                os.killpg(pid, signal.SIGKILL)
            return status
        time.sleep(0.001)
    return UNKNOWN_STATUS


def _session(environment: TextEnvironment, connection: socket.socket, helper: int) -> None:
    """A forked process: never returns."""
    os.setsid()
    end_with_parent(helper)
    with contextlib.suppress(OSError):
        while True:
            send(connection, _answer(environment, *pickle.loads(receive(connection))))
    with contextlib.suppress(BaseException):
        environment.close()
        sys.stdout.flush()
    os._exit(0)


def _answer(environment: TextEnvironment, question: str, arguments: tuple[object, ...]) -> bytes:
    """A pickled pair: what went wrong (``crash``, ``garbage`` or nothing), and the answer or the error text."""
    try:
        answer = getattr(environment, question)(*arguments)
    except BaseException as error:
        return pickle.dumps(("crash", "".join(traceback.format_exception(error, limit=-3))[-2000:]))
    try:
        fault = QUESTIONS[question](answer)
        return pickle.dumps(("garbage", fault) if fault else ("", answer))
    except Exception as error:
        return pickle.dumps(("garbage", f"{question} returned what cannot be checked or pickled: {error}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
