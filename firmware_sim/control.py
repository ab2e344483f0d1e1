"""The wire to bad luck: one JSON object a line tells a simulated van what befalls it, one JSON line answers.

Whatever comes in, the port answers: nonsense is refused by name and counted, and the van drives on.
"""

import socketserver
import threading
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec

LONGEST_LINE = 16_384


class NotUnderstood(ValueError):
    """This line is no command of the control port."""


class Command(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True):
    """Something the control port is told."""


class State(Command, frozen=True, tag="state"):
    """Say where the van is and what it does."""


class CloseWay(Command, frozen=True, tag="close_way"):
    """This street closes in the van's world; without a way the next street ahead that is not the stop's own."""

    way: int | None = None


class CustomerOut(Command, frozen=True, tag="customer_out"):
    """Nobody will be at this stop's door (before `until_ms` when it is given); without a stop at the next one's."""

    stop_id: str | None = None
    until_ms: int | None = None


class Slow(Command, frozen=True, tag="slow"):
    """Driving takes this many times as long from now on."""

    factor: Annotated[float, msgspec.Meta(ge=0.2, le=10)]


class Hold(Command, frozen=True, tag="hold"):
    """The van is held up where it stands."""

    minutes: Annotated[float, msgspec.Meta(gt=0, le=600)]


class DigIn(Command, frozen=True, tag="dig_in"):
    """The driver is in a mood: the next changed order is turned down, whatever it is."""


AnyCommand = State | CloseWay | CustomerOut | Slow | Hold | DigIn
_decoder: "msgspec.json.Decoder[AnyCommand]" = msgspec.json.Decoder(AnyCommand)


def understood(line: bytes) -> AnyCommand:
    """The command a line holds; raises NotUnderstood saying what was found and what is understood."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
        raise NotUnderstood(
            f"{wrong}; expected one JSON object a line with do: state, close_way, customer_out, slow, hold or dig_in"
        ) from None


def from_mishap(command: dict[str, Any]) -> AnyCommand:
    """The command of a named day's mishap; raises NotUnderstood."""
    return understood(msgspec.json.encode(command))


class Impossible(ValueError):
    """The command is understood but cannot befall this van now."""


class ControlPort:
    """Listens on loopback and lets `obey` answer; `refused` counts the lines that were no command."""

    def __init__(self, port: int, obey: Callable[[AnyCommand], dict[str, Any]]) -> None:
        """Port 0 takes any free one: see `port`. Raises OSError when the port is taken."""
        control = self
        self.refused = 0
        self._lock = threading.Lock()

        class Conversation(socketserver.StreamRequestHandler):
            timeout: ClassVar[float] = 600.0

            def handle(self) -> None:
                try:
                    while line := self.rfile.readline(LONGEST_LINE + 1):
                        if line.strip() or len(line) > LONGEST_LINE:
                            self.wfile.write(msgspec.json.encode(control.answer(line, obey)) + b"\n")
                        if len(line) > LONGEST_LINE:
                            return
                except OSError:
                    return  # The other side went away in the middle of a sentence.

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Conversation)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="control", daemon=True).start()

    def answer(self, line: bytes, obey: Callable[[AnyCommand], dict[str, Any]]) -> dict[str, Any]:
        """What to say to one line."""
        try:
            if len(line) > LONGEST_LINE:
                raise NotUnderstood(f"the line is longer than {LONGEST_LINE} bytes")
            return obey(understood(line))
        except NotUnderstood as wrong:
            with self._lock:
                self.refused += 1
            return {"error": str(wrong), "refused": self.refused}
        except Impossible as wrong:
            return {"error": str(wrong)}

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
