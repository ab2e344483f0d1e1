"""The processes of one machine: started together, watched, and stopped together."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2).


class DidNotStart(RuntimeError):
    """A process ended, or did not answer, while it should have come up."""


class Stack:
    """A handful of named processes. None of them outlives this one, however it ends."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Logs go to `folder`, one file a process; `environment` is added to this process's own."""
        self.folder = folder
        self._environment = {**os.environ, **environment}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m module arguments` under a name."""
        self.start_program(name, sys.executable, "-m", module, *arguments)

    def start_program(self, name: str, *command: str) -> None:
        """Start any program under a name."""
        self._commands[name] = list(command)
        self._spawn(name)

    def start_again(self, name: str) -> None:
        """Start a process once more as it was started before."""
        self._spawn(name)

    def kill(self, name: str) -> None:
        """SIGKILL: the process gets no chance to say or write anything."""
        self._processes[name].kill()
        self._processes[name].wait()

    @property
    def ids(self) -> dict[str, int]:
        """The process id of each."""
        return {name: process.pid for name, process in self._processes.items()}

    def revive(self) -> list[str]:
        """Start again whoever ended with EX_TEMPFAIL, by which a process asks for it; their names."""
        revived = [name for name, process in self._processes.items() if process.poll() == os.EX_TEMPFAIL]
        for name in revived:
            self._spawn(name)
        return revived

    def fallen(self) -> list[str]:
        """Who has ended without being asked to, with the last line each wrote."""
        return [
            f"{name} ended with {process.returncode}: {self.last_words(name)}"
            for name, process in self._processes.items()
            if process.poll() is not None
        ]

    def last_words(self, name: str) -> str:
        """The last line of a process's log."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(it wrote nothing)"

    def wait_for_port(self, name: str, port: int, patience_s: float = 20.0) -> None:
        """Return when the port accepts; raises DidNotStart when the process ends or the patience does."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self._processes[name].poll() is not None:
                raise DidNotStart(f"{name} ended: {self.last_words(name)}; see {self.folder / name}.log")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise DidNotStart(f"{name} did not open port {port} in {patience_s:.0f} s; see {self.folder / name}.log")

    def stop(self) -> None:
        """SIGTERM to all, the last started first; SIGKILL to who has not gone in three seconds."""
        running = [process for process in reversed(self._processes.values()) if process.poll() is None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + 3
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _spawn(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                self._commands[name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,  # Ctrl-C in the terminal is for the demo itself, which then stops everyone in order.
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, and no other way to ask for it.
            )


def free_ports(count: int) -> Sequence[int]:
    """Port numbers nobody listens on now. They are found together, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)
