"""A CAN bus between the processes of one machine, over multicast on its loopback interface.

python-can's own `udp_multicast` bus goes by the route to the network: without one it cannot be opened (a laptop on a
train), and with one its frames depend on Wi-Fi, VPN and firewall. This bus speaks the same datagrams but never leaves
the machine. Between machines, use python-can's.
"""

import contextlib
import select
import socket
import time

import can
from can.interfaces.udp_multicast.utils import is_msgpack_installed, pack_message, unpack_message

LOOPBACK = "127.0.0.1"
LARGEST_DATAGRAM = 4096


class NearBus(can.BusABC):
    """A member of an IPv4 multicast group on this machine. Hears its own frames too, as on python-can's."""

    def __init__(self, group: str, port: int) -> None:
        """Join `group`, such as 239.74.163.2. Raises can.CanInitializationError when the group cannot be joined."""
        is_msgpack_installed()
        self._destination = (group, port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        super().__init__(channel=group)
        self.channel_info = f"{group}:{port} on loopback"
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Bound to the group and not to any address: what is sent to this port otherwise is not for us.
            self._socket.bind(self._destination)
            near = socket.inet_aton(LOOPBACK)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + near)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, near)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
        except OSError as error:
            self.shutdown()
            raise can.CanInitializationError(f"cannot join {group}:{port} on loopback: {error}") from error

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._socket.fileno()

    def send(self, msg: can.Message, timeout: float | None = None) -> None:  # noqa: ARG002, a datagram never waits
        """Send a frame to all members. Raises can.CanOperationError."""
        try:
            self._socket.sendto(pack_message(msg), self._destination)
        except OSError as error:
            raise can.CanOperationError(f"cannot send to {self.channel_info}: {error}") from error

    def shutdown(self) -> None:
        """Leave the group. May be called twice."""
        super().shutdown()
        with contextlib.suppress(OSError):
            self._socket.close()

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        try:
            ready, _, _ = select.select([self._socket], [], [], timeout)
            if not ready:
                return None, False
            datagram = self._socket.recv(LARGEST_DATAGRAM)
        except OSError as error:
            raise can.CanOperationError(f"cannot receive from {self.channel_info}: {error}") from error
        try:
            return unpack_message(datagram, replace={"timestamp": time.time()}, check=True), False
        except Exception as error:
            raise can.CanOperationError("could not unpack received message") from error
