"""A dockerd of the tests' own, from the distribution's package; it has a folder of its own and can be killed."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path

PATIENCE = 30.0


class Engine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Why there can be none here; empty if there can."""
        if os.geteuid() != 0:
            return "an engine of the tests' own needs root"
        return "" if shutil.which("dockerd") else "dockerd is not installed (apt-get install docker.io)"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in ("docker.pid", "exec/containerd/containerd.pid"):
            path = self.folder / stale
            with suppress(OSError, ValueError):
                if stale.startswith(
                    "exec"
                ):  # a killed dockerd leaves its containerd behind, for which a new one waits 15 s
                    os.kill(int(path.read_text()), signal.SIGTERM)
            path.unlink(missing_ok=True)
        options = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        folders = [
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/docker.pid",
        ]
        with (self.folder / "log").open("ab") as log:
            command = ["dockerd", "-H", self.url, "--live-restore", *folders, *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + PATIENCE
        while not self.answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"dockerd does not start: {(self.folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)

    def answers(self) -> bool:
        with suppress(OSError, http.client.HTTPException), closing(http.client.HTTPConnection("engine")) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(2)
            connection.sock.connect(str(self.socket))
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        return False

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process
        self._process.terminate()
        self._process.wait(PATIENCE)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if line.split()[1].startswith(f"{self.folder}/"):  # one that was killed has left them
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
