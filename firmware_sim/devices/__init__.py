"""Be the devices of a van: speak on sockets, serial lines and buses what hardware speaks, from what is true of the van.

Each device asks a callable for the truth (`VanTruth`) at its own real-time rate and says it with the faults of its
kind. An agent cannot tell these devices from hardware; nothing but their protocols connects the two.
"""

import errno
import os
import select
import socket
import threading
import tty
from collections.abc import Callable

import msgspec

from shared.quantities import EpochMs, Position


class VanTruth(msgspec.Struct, frozen=True):
    """What is true of the van at one instant of domain time, whatever its devices say.

    `course_deg` is clockwise from north; `energy_share` is the tank or battery, 0 to 1; `engine_rpm` stays 0
    in an electric van.
    """

    utc_ms: EpochMs
    position: Position
    speed_mps: float = 0.0
    course_deg: float = 0.0
    odometer_m: float = 0.0
    engine_rpm: float = 0.0
    energy_share: float = 1.0
    outside_c: float = 10.0
    is_ignition_on: bool = True


Truth = Callable[[], VanTruth]
"""What is true now; called from the device's own thread."""


class ByteServer:
    """Says bytes to everybody who listens: TCP clients, and whoever opens its pseudo-terminal as a serial line.

    Like a UART it waits for nobody: a listener whose buffer is full loses bytes (serial) or its connection (TCP).
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, has_serial_line: bool = False) -> None:
        self._listener = socket.create_server((host, port), backlog=8)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"tcp://{host}:{self.port}"
        self.serial_url: str | None = None
        self._pty: tuple[int, int] | None = None
        if has_serial_line:
            self._pty = os.openpty()
            # Raw, and the far end held open: no echo, and no error while nobody listens.
            tty.setraw(self._pty[1])
            os.set_blocking(self._pty[0], False)
            self.serial_url = f"serial://{os.ttyname(self._pty[1])}?baud=9600"
        self._clients: list[socket.socket] = []
        self._lock = threading.Lock()
        self._has_client = threading.Condition(self._lock)
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._accept_all, name=f"devices at {self.url}", daemon=True)
        self._thread.start()

    @property
    def listeners(self) -> int:
        """How many TCP clients listen now."""
        with self._lock:
            return len(self._clients)

    def await_listener(self, timeout_s: float = 10.0) -> bool:
        """Wait until somebody has connected by TCP; False when nobody came in time."""
        with self._has_client:
            return self._has_client.wait_for(lambda: bool(self._clients), timeout_s)

    def say(self, said: bytes) -> None:
        """Say bytes to all who listen now."""
        with self._lock:
            self._clients = [client for client in self._clients if _is_told(client, said)]
            if self._pty is not None:
                try:
                    os.write(self._pty[0], said)
                except OSError as error:
                    if error.errno not in (errno.EAGAIN, errno.EIO):
                        raise

    def hang_up(self) -> None:
        """Close all connections, as a gateway does that restarts; new ones are accepted."""
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients = []

    def stop(self) -> None:
        """Close everything."""
        self._wake_write.send(b"!")
        self._thread.join(5)
        self.hang_up()
        self._listener.close()
        self._wake_read.close()
        self._wake_write.close()
        for descriptor in self._pty or ():
            os.close(descriptor)
        self._pty = None

    def _accept_all(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue  # Gone between its knock and our answer.
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._has_client:
                self._clients.append(client)
                self._has_client.notify_all()


def _is_told(client: socket.socket, said: bytes) -> bool:
    try:
        # What a listener writes to a device that only speaks is read and forgotten; an empty read is a goodbye.
        while True:
            if not client.recv(4096):
                client.close()
                return False
    except BlockingIOError:
        pass
    except OSError:
        client.close()
        return False
    try:
        is_whole = client.send(said) == len(said)
    except OSError:
        is_whole = False
    if not is_whole:
        client.close()
    return is_whole
