"""Verify and decode what comes from the broker; what is refused is counted by name, and the process lives."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from edge_agent.identity import DeadLetter
from edge_agent.machine import IngestBegan
from shared import topics, wire
from shared.logs import log
from shared.mqtt import Heard, LinkEvent
from shared.signing import Verifier
from shared.topics import TopicUnknown
from shared.wire import Refused
from shared.work import AgentId


class Door:
    """What comes from the broker, as events the core may believe."""

    def __init__(self, region: str, agent: AgentId, verifier: Verifier, post: Callable[[Any], None]) -> None:
        self.refused: Counter[str] = Counter()
        self._region, self._agent = region, agent
        self._verifier = verifier
        self._post = post

    def hear(self, event: LinkEvent) -> None:
        """Called from the network's thread: verify, decode, put before the core. Never raises."""
        if not isinstance(event, Heard):
            log("link_up" if type(event).__name__ == "LinkUp" else "link_down", why=getattr(event, "why", ""))
            self._post(event)
            return
        try:
            self._post(self._read(event))
        except (Refused, TopicUnknown) as refusal:
            name = type(refusal).__name__
            self.refused[name] += 1
            if self.refused[name] == 1:
                log("message_refused", name=name, topic=event.topic[:80], because=str(refusal)[:200])

    def _read(self, heard: Heard) -> Any:
        place = topics.read(heard.topic)
        if place.region != self._region:
            raise TopicUnknown(f"topic '{heard.topic[:80]}' is of another region than {self._region}")
        if place.direction == "up" and place.party == topics.HUB and place.carries == "presence":
            return wire.decode_presence(heard.payload)
        if place.direction == "up" and place.party == topics.HUB and place.carries == topics.INGEST:
            return IngestBegan(wire.decode_presence(heard.payload).life)
        if place.direction != "down" or place.party != self._agent:
            raise TopicUnknown(f"topic '{heard.topic[:80]}' is not for {self._agent}")
        if place.carries == "acks":
            return wire.decode_ack(heard.payload)
        return self._command(heard)

    def _command(self, heard: Heard) -> Any:
        if len(heard.payload) > wire.MOST_BYTES:
            raise wire.TooLarge(f"{len(heard.payload)} bytes, expected at most {wire.MOST_BYTES}")
        self._verifier.check(heard.topic, heard.payload, heard.signature)
        try:
            return wire.decode_numbered(heard.payload)
        except wire.UnknownMessage as wrong:
            return DeadLetter(wire.decode_numbered_heading(heard.payload), str(wrong)[:500])
