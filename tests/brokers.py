"""Start a plain broker beside what is tested or measured: the embedded one, or Mosquitto without TLS."""

from pathlib import Path

from deploy.mosquitto import program
from deploy.stack import Stack

MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
max_connections -1
set_tcp_nodelay true
max_inflight_messages 256
max_queued_messages {most_queued}
"""
"""Limits as in deploy/mosquitto; without TLS, which the embedded broker has not either."""


def start_broker(
    stack: Stack, kind: str, folder: Path, port: int, most_queued: int = 10_000, is_kept: bool = False
) -> None:
    """Start it under the name "broker", and wait until it listens; `kind` is embedded or mosquitto.

    Of Mosquitto: `most_queued` messages may wait for each client, 0 for any number; `is_kept` has it keep what waits on
    disk, in the folder. Raises RuntimeError when there is no Mosquitto.
    """
    if kind == "embedded":
        stack.start("broker", "deploy.broker", "--port", str(port))
    else:
        found = program()
        if found is None:
            raise RuntimeError(
                "there is no mosquitto on this machine: apt install mosquitto, or use the embedded broker"
            )
        text = MOSQUITTO.format(port=port, most_queued=most_queued)
        if is_kept:
            kept = folder / "mosquitto"
            kept.mkdir(exist_ok=True)
            kept.chmod(0o777)  # Started by root it drops to its own user.
            text += f"persistence true\npersistence_location {kept}/\nautosave_interval 5\n"
        configuration = folder / "mosquitto.conf"
        configuration.write_text(text)
        stack.start_program("broker", found, "-c", str(configuration))
    stack.wait_for_port("broker", port)
