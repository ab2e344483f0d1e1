"""A cable between two processes that can be pulled: a TCP relay with a control port.

The demo and the tests put one between each agent and the broker, so that a
cut link is a real one: connections break and new ones are refused until
the cable is plugged in again. A frozen one breaks nothing and carries
nothing, which neither end can tell from silence (a half-open link); plugged
in again, it carries on. One JSON object a line on the control port:
{"do": "pull"}, {"do": "freeze"}, {"do": "plug"} or {"do": "state"}.
"""

import asyncio
import json
import socket
import sys
from typing import Any

COPY_BYTES = 65_536


class Cable:
    """Relays every connection to one address while it is plugged in."""

    def __init__(self, host: str, port: int) -> None:
        """`host` and `port` are the far end."""
        self._far_end = (host, port)
        self._is_plugged = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the near end."""
        if not self._is_plugged:
            writer.transport.abort()
            return
        await self._flows.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far_end)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._open |= pair
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        self._open -= pair

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the control port."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._obey(line)).encode() + b"\n")
                await writer.drain()
        except ValueError:  # The line is longer than asyncio's limit, so nobody knows where the next one begins.
            writer.write(b'{"error": "the line is longer than 65536 bytes"}\n')
        except OSError:
            return
        writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(COPY_BYTES):
                await self._flows.wait()
                writer.write(block)
                await writer.drain()
        except OSError:
            pass  # A broken connection is what a cable is there for.
        finally:
            await self._flows.wait()  # Nor does the other end hear that this one has gone.
            writer.transport.abort()

    def _obey(self, line: bytes) -> dict[str, object]:
        try:
            wish = json.loads(line)["do"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": 'expected {"do": "pull" | "freeze" | "plug" | "state"}'}
        if wish == "pull":
            self._is_plugged = False
            self._flows.set()
            for writer in list(self._open):
                writer.transport.abort()
        elif wish == "freeze":
            self._flows.clear()
        elif wish == "plug":
            self._is_plugged = True
            self._flows.set()
        elif wish != "state":
            return {"error": f"found '{wish}', expected pull, freeze, plug or state"}
        return {
            "is_plugged": self._is_plugged,
            "is_frozen": not self._flows.is_set(),
            "connections": len(self._open) // 2,
        }


def tell(control_port: int, wish: str) -> dict[str, Any]:
    """Tell a cable's process to pull, freeze, plug or state, and return its answer."""
    with socket.create_connection(("127.0.0.1", control_port), timeout=5) as wire, wire.makefile("rwb") as lines:
        lines.write(json.dumps({"do": wish}).encode() + b"\n")
        lines.flush()
        answer: dict[str, Any] = json.loads(lines.readline())
        return answer


async def _serve(listen: int, far_host: str, far_port: int, control: int) -> None:
    cable = Cable(far_host, far_port)
    relay = await asyncio.start_server(cable.relay, "127.0.0.1", listen)
    commands = await asyncio.start_server(cable.control, "127.0.0.1", control)
    async with relay, commands:
        await asyncio.gather(relay.serve_forever(), commands.serve_forever())


if __name__ == "__main__":
    near, far, steering = sys.argv[1:4]
    far_name, far_number = far.rsplit(":", 1)
    asyncio.run(_serve(int(near), far_name, int(far_number), int(steering)))
