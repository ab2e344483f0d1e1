"""Judge a command before it is obeyed: is it of the hub that acts, is it the next, is it in time?

What a hub says that another has replaced is neither taken nor acknowledged: the one that acts says it again under its
own epoch and the same number, and must find that number free.
"""

from typing import Any

from shared import topics
from shared.messages import Ack, Numbered, PlanPushed, TimeTold, TooLate
from shared.steps import Row, Saved
from shared.streams import Receiver, Take
from shared.wire import Heading

STREAM = "commands"


class Commands:
    """What was taken of the hub's commands, and the acknowledgement owed for it."""

    def __init__(self, saved: Saved) -> None:
        """From everything the store held."""
        self._taken = Receiver(saved.get("taken", {}))
        self._owes_ack = False

    def take(self, command: Numbered | Heading, epoch: int) -> tuple[str, list[Row]]:
        """The name of the refusal, empty when it is the command's turn; the rows say that it was taken.

        `epoch` is the highest heard. A command refused by its number was heard before or comes again: it is owed an
        acknowledgement like any other.
        """
        if command.epoch < epoch:
            return "EpochOver", []
        if command.sender != topics.HUB or command.stream != STREAM:
            return "StreamUnknown", []
        self._owes_ack = True
        take, rows = self._taken.take(command, command.after)
        return "" if take is Take.NEW else f"Command{take.value.capitalize()}", rows

    def acknowledgement(self) -> Ack | None:
        """The ack owed for commands of this step, once; to be sent after the commit."""
        ack = self._taken.ack(topics.HUB, STREAM) if self._owes_ack else None
        self._owes_ack = False
        return ack

    def durable(self) -> Any:
        """What of it a restart must not forget."""
        return self._taken.ack(topics.HUB, STREAM)


def too_late(command: Numbered, now_ms: int) -> TooLate | None:
    """What the hub hears of a command past its start-by time; None when it is to be begun.

    A plan that is over is refused as a plan, by name; and an answer to our question for the time has its own patience.
    """
    start_by_ms, message = command.start_by_ms, command.message
    if start_by_ms is None or now_ms <= start_by_ms or isinstance(message, PlanPushed | TimeTold):
        return None
    return TooLate(str(type(message).__struct_config__.tag), command.seq, start_by_ms)
