"""The embedded broker: MQTT 5 on the loopback, in memory, for the demo and for tests.

It asks nobody who they are and keeps nothing over a restart, so it refuses
to listen anywhere but on the loopback. In production Mosquitto stands here.
"""

import ipaddress
import logging
import socket
import sys
import tempfile
from pathlib import Path

from iotcore.iotcore import IotCoreBroker

from shared.wire import MOST_BYTES


class NotLoopback(ValueError):
    """The embedded broker checks nobody's identity and must not be reached from outside."""


class PortTaken(OSError):
    """Somebody else listens on the port."""


# MQTT 5 needs a configuration file; the default payload limit of 20 KB is less than a plan's leg times, and a larger
# message makes the broker drop the connection.
CONFIGURATION = """
id = 0

[router]
id = 0
max_connections = 2000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {most_bytes}
max_inflight_count = 200
dynamic_filters = true
"""


def serve(port: int, host: str = "127.0.0.1") -> None:
    """Run the broker until the process ends. Raises NotLoopback or PortTaken before it listens."""
    if not ipaddress.ip_address(host).is_loopback:
        raise NotLoopback(f"the embedded broker was asked to listen on {host}; use Mosquitto (deploy/) for a network")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise PortTaken(f"port {port} on {host} is taken; give another one with --port") from None
    # rumqttd reports every packet as an error record; only silence leaves the real ones readable elsewhere.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    logging.basicConfig(level=logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="waywarden-broker-") as folder:
        path = Path(folder) / "broker.toml"
        path.write_text(CONFIGURATION.format(host=host, port=port, most_bytes=MOST_BYTES + 4096))
        IotCoreBroker(config_path=str(path)).run_forever()


if __name__ == "__main__":
    serve(int(sys.argv[sys.argv.index("--port") + 1]) if "--port" in sys.argv else 1883)
