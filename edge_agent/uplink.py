"""Keep the link to the hub: who is there, and what goes to whom when.

A hub that was away, that is met for the first time, or that has begun a new life may not have heard what was on its
way: it is told again at once, and how far back the agent can tell.
"""

from edge_agent.outbox import Outbox
from edge_agent.timekeeping import Timekeeping
from shared import topics, wire
from shared.messages import Ack, Presence
from shared.steps import Envelope
from shared.work import AgentId

_AWAY = ("", "", 0)
"""No hub's life, boot and epoch."""


class Uplink:
    """One agent's link to its hub, over which its outbox is sent."""

    def __init__(
        self, agent: AgentId, region: str, boot: str, life: str, outbox: Outbox, time: Timekeeping | None = None
    ) -> None:
        """`boot` names the life of the store, `life` that of this process; no `time` when that is known for good."""
        self._agent, self._region, self._boot, self._life = agent, region, boot, life
        self._outbox = outbox
        self._time = time or Timekeeping(life, 1.0, {})
        self._is_up = False
        self._hub: tuple[str, str, int] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the broker is there."""
        return self._is_up

    def go_up(self, real_ms: int) -> list[Envelope]:
        """The broker is there: everything unacknowledged is said again, and this says that the agent is there. The hub
        is to be met anew: where the broker fell, it may come back later than the agent.
        """
        self._is_up = True
        self._hub = None
        self._outbox.repeat_all()
        return self.presence(real_ms)

    def go_down(self) -> None:
        """The broker is away; what is said waits."""
        self._is_up = False

    def meet(self, presence: Presence, real_ms: int) -> list[Envelope]:
        """Somebody is there or is not; a hub that is another than before is told again what it may not have heard."""
        hub = (presence.life, presence.boot, presence.epoch) if presence.is_there else _AWAY
        if presence.party != topics.HUB or hub == self._hub:
            return []
        self._hub = hub
        if hub is _AWAY or not self._is_up:
            return []
        self._outbox.repeat_all()
        return self.presence(real_ms)

    def hear_ingest(self) -> None:
        """A process that takes telemetry has begun: batches may have been on their way to one that died."""
        self._outbox.repeat_telemetry()

    def presence(self, real_ms: int) -> list[Envelope]:
        """The agent is there, and this is how far back it can still say everything; it asks for the time it lacks.

        Nothing while the link is down: whoever comes up says it.
        """
        if not self._is_up:
            return []
        there = Presence(
            self._agent,
            is_there=True,
            life=self._life,
            boot=self._boot,
            unacked=self._outbox.unacked,
            is_dated=self._time.is_dated,
            asks_time=self._time.ask(real_ms),
        )
        topic = topics.up(self._region, self._agent, "presence")
        return [Envelope(topic, wire.encode(there), topics.QOS["presence"], is_retained=True)]

    def acknowledge(self, ack: Ack | None) -> list[Envelope]:
        """Tell the hub what was taken of its commands, if anything is owed."""
        return [] if ack is None else [self._envelope("acks", wire.encode(ack))]

    def due(self, real_ms: int) -> list[Envelope]:
        """What should be sent or repeated now; nothing while the link is down."""
        if not self._is_up:
            return []
        asks_at = self._time.asks_at
        asks = self.presence(real_ms) if asks_at is not None and asks_at <= real_ms else []
        return [*asks, *(self._envelope(stream, payload) for stream, payload in self._outbox.due(real_ms))]

    def due_at(self, real_ms: int) -> int | None:
        """When something is due next, in real time; None when nothing will be."""
        if not self._is_up:
            return None
        waits = (self._outbox.due_at(real_ms), self._time.asks_at)
        return min((at_ms for at_ms in waits if at_ms is not None), default=None)

    def _envelope(self, carries: str, payload: bytes) -> Envelope:
        return Envelope(topics.up(self._region, self._agent, carries), payload, topics.QOS[carries])
