"""Which topic carries which message, at what quality of service.

An agent writes only below its own `up` and reads only below its own
`down`, so one pattern per direction is a broker's whole access list.
"""

from typing import NamedTuple

from shared.work import AgentId

HUB = AgentId("hub")

UP = ("events", "telemetry", "objects", "acks", "presence")
DOWN = ("commands", "acks")
INGEST = "ingest"
"""Said by whoever begins to take telemetry: what was on its way to a process that died is to be sent again at once."""

QOS = {"events": 1, "commands": 1, "telemetry": 1, "objects": 1, "acks": 0, "presence": 1, "ingest": 1}
"""An ack that is lost is repeated with the next message, so it may travel at 0."""


class TopicUnknown(ValueError):
    """A topic that is not one of ours."""


class Place(NamedTuple):
    """What a topic says: region, whose topic it is, direction, and what it carries."""

    region: str
    party: AgentId
    direction: str
    carries: str


def up(region: str, agent: AgentId, carries: str) -> str:
    """Where an agent speaks."""
    return f"ww/{region}/{agent}/up/{carries}"


def down(region: str, agent: AgentId, carries: str) -> str:
    """Where an agent is spoken to."""
    return f"ww/{region}/{agent}/down/{carries}"


def hub_presence(region: str) -> str:
    """Where the hub says that it is there."""
    return f"ww/{region}/{HUB}/up/presence"


def ingest_presence(region: str) -> str:
    """Where a process that takes telemetry says that it has begun; not retained."""
    return f"ww/{region}/{HUB}/up/{INGEST}"


def heard_by_hub(region: str) -> list[str]:
    """The hub's subscriptions."""
    return [up(region, AgentId("+"), carries) for carries in UP]


def heard_by_agent(region: str, agent: AgentId) -> list[str]:
    """An agent's subscriptions."""
    return [*(down(region, agent, carries) for carries in DOWN), hub_presence(region), ingest_presence(region)]


def read(topic: str) -> Place:
    """The parts of a topic of ours; raises TopicUnknown for any other."""
    parts = topic.split("/")
    if len(parts) == 5 and parts[0] == "ww":
        place = Place(parts[1], AgentId(parts[2]), parts[3], parts[4])
        if place.carries in {"up": (*UP, INGEST), "down": DOWN}.get(place.direction, ()):
            return place
    raise TopicUnknown(f"topic '{topic[:80]}', expected ww/REGION/AGENT/up|down/...")
