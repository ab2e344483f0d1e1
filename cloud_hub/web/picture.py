"""The hub's picture as people ask for it: made from the store's documents, never from the core itself.

A reader may be a commit behind the core; it can never hold it up. Whoever is bound to depots or to a partner's orders
sees of every room what is theirs (`cloud_hub.access.sight`), whatever the page asks for.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from cloud_hub.access.asking import sight
from cloud_hub.access.sight import Sight
from cloud_hub.chains import KeptHand
from cloud_hub.events import Notice
from cloud_hub.fleet import (
    AgentRecord,
    Chain,
    Closures,
    EstimatesHeard,
    KeptDecision,
    Order,
    StopRecord,
    Vehicle,
    why_waiting,
)
from cloud_hub.promises import Promise, Telling
from cloud_hub.storage import DecisionRow, DecisionsAsked, HubStore, TelemetryStore
from shared.contracts import Plan
from shared.ledger import spoken
from shared.messages import Estimate
from shared.work import AgentId, Stop, Visit, doubt_about_place

T = TypeVar("T")

Shown = dict[str, Any]

DECISIONS_AT_ONCE = 500
MOST_DECISIONS = 1_000_000


class Picture:
    """Reads the store for people."""

    def __init__(self, store: HubStore, telemetry: TelemetryStore, is_whole: bool = False) -> None:
        """`is_whole` for what the hub itself must know to answer anybody: such a picture is never shown."""
        self._store = store
        self._telemetry = telemetry
        self._is_whole = is_whole

    @property
    def whole(self) -> "Picture":
        """Everything there is, whoever asks."""
        return self if self._is_whole else Picture(self._store, self._telemetry, is_whole=True)

    @property
    def _sight(self) -> Sight | None:
        return None if self._is_whole else sight()

    def all(self, room: str, kind: type[T], prefix: str = "") -> dict[str, T]:
        """Every document of a room whose key begins so, as values by key."""
        decoder, bound = msgspec.json.Decoder(kind), self._sight
        return {
            key: decoder.decode(document)
            for key, document in self._store.documents(room, prefix)
            if bound is None or bound.sees(room, key, document)
        }

    def one(self, room: str, key: str, kind: type[T]) -> T | None:
        """One document as a value; None when there is none."""
        document, bound = self._store.document(room, key), self._sight
        if document is None or (bound is not None and not bound.sees(room, key, document)):
            return None
        return msgspec.json.decode(document, type=kind)

    def fleet(self) -> list[Shown]:
        """Every agent: who it is, whether it is there, what it does now and how late it is."""
        stops = self.all("stops", StopRecord)
        promises = self.all("promises", Promise)
        vehicles = self.all("vehicles", Vehicle)
        estimates = self.all("estimates", EstimatesHeard)
        plans = self.all("plans", Plan)
        return [
            _agent_shown(agent, vehicles.get(name), plans.get(name), stops, promises, _by_stop(estimates.get(name)))
            | {"position": self.position(agent.agent)}
            for name, agent in self.all("agents", AgentRecord).items()
        ]

    def position(self, agent: AgentId) -> Shown | None:
        """Where an agent last said it was; None when its readings say nothing of it."""
        latest = self._telemetry.latest(agent)
        if "lat" not in latest or "lon" not in latest:
            return None
        return {"lat": round(latest["lat"][1], 6), "lon": round(latest["lon"][1], 6), "at_ms": latest["lat"][0]}

    def routes(self) -> list[Shown]:
        """Every agent's route."""
        return [self._route(agent) for agent in self.all("agents", AgentRecord).values()]

    def route(self, agent: str) -> Shown | None:
        """Planned, shown and driven order of one agent, and every stop of its plan; None when the agent is unknown."""
        record = self.one("agents", agent, AgentRecord)
        return None if record is None else self._route(record)

    def _route(self, record: AgentRecord) -> Shown:
        plan = self.one("plans", record.agent, Plan)
        stops = {key: stop for key, stop in self.all("stops", StopRecord).items() if stop.agent == record.agent}
        promises = self.all("promises", Promise)
        estimates = _by_stop(self.one("estimates", record.agent, EstimatesHeard))
        planned = () if plan is None else plan.stops
        driven = sorted(
            (visit.arrived_ms, stop.stop_id, visit.outcome.value) for stop in stops.values() for visit in stop.visits
        )
        return {
            "agent": record.agent,
            "plan_version": record.plan_pushed,
            "plan_taken": record.plan_taken,
            "depart_ms": None if plan is None else plan.depart_ms,
            "shift_end_ms": None if plan is None else plan.shift_end_ms,
            "planned_order": [stop.stop_id for stop in planned],
            "shown_order": list(record.order),
            "driven_order": [stop_id for _, stop_id, _ in driven],
            "stops": [
                {
                    "stop_id": stop.stop_id,
                    "order_id": stop.order_id,
                    "address": stop.address,
                    "position": [stop.position.lat, stop.position.lon],
                    "service": stop.service,
                    "service_s": stop.service_s,
                    "state": stops[stop.stop_id].state if stop.stop_id in stops else "waiting",
                    "outcome": _outcome(stops.get(stop.stop_id)),
                    **_promised(promises.get(stop.stop_id), estimates.get(stop.stop_id)),
                }
                for stop in planned
            ],
        }

    def promises(self) -> list[Shown]:
        """Every promise: slot, told window with its history, and the newest estimate."""
        # A partner sees what was sold and told; what we expect is ours, and its room is hidden from it.
        estimates: dict[str, Estimate] = {}
        for heard in self.all("estimates", EstimatesHeard).values():
            estimates |= _by_stop(heard)
        return [
            {
                "stop_id": promise.stop_id,
                "order_id": promise.order_id,
                "agent": promise.agent,
                **_promised(promise, None if promise.served_ms is not None else estimates.get(promise.stop_id)),
                "tellings": msgspec.to_builtins(promise.tellings),
                "moves": promise.moves,
                "is_breached": promise.is_breached,
                "held": promise.held,
                "served_ms": promise.served_ms,
                "outcome": promise.outcome,
                "was_kept": None if promise.served_ms is None else promise.told.holds(promise.served_ms),
            }
            for promise in self.all("promises", Promise).values()
        ]

    def orders(self, state: str | None) -> list[Shown]:
        """Every order with what became of it; only those of one state when one is given."""
        stops: dict[str, list[StopRecord]] = {}
        for stop in self.all("stops", StopRecord).values():
            stops.setdefault(stop.order_id, []).append(stop)
        fleet = self._fleet()
        return [
            _order_shown(order, stops.get(order.order_id, []), fleet)
            for order in self.all("orders", Order).values()
            if state is None or order.state == state
        ]

    def order(self, order_id: str) -> Shown | None:
        """One order with what became of it; None when it is unknown."""
        order = self.one("orders", order_id, Order)
        if order is None:
            return None
        named = sorted({stop.stop_id for stop in (order.stop, *order.amended) if stop is not None})
        found = (self.one("stops", stop_id, StopRecord) for stop_id in named)
        return _order_shown(order, [stop for stop in found if stop is not None], self._fleet())

    def _fleet(self) -> list[tuple[Vehicle, AgentRecord]]:
        """Every vehicle: why an order waits is so whoever asks."""
        agents = self.whole.all("agents", AgentRecord)
        vehicles = self.whole.all("vehicles", Vehicle)
        return [(vehicle, agents[name]) for name, vehicle in vehicles.items() if name in agents]

    def decisions(self, asked: DecisionsAsked) -> list[Shown]:
        """Decisions with their number in the order of commits, and whether each follows from the one before it."""
        known = _Known(self._addresses(), self.all("hands", KeptHand))
        return [_decision_shown(row, known) for row in self._decisions(asked)]

    def _decisions(self, asked: DecisionsAsked) -> list[DecisionRow]:
        """As many as asked for of those the caller may see: read on behind the last while too few are theirs."""
        bound = self._sight
        if bound is None:
            return self._store.decisions(asked)
        found: list[DecisionRow] = []
        if asked.newest_first:
            # Numbers go on upwards only, so all of them are read.
            rows = self._store.decisions(asked._replace(most=MOST_DECISIONS))
            return [row for row in rows if bound.sees_decision(row.doc)][: asked.most]
        after = asked.after
        while len(found) < asked.most:
            rows = self._store.decisions(asked._replace(after=after, most=DECISIONS_AT_ONCE))
            found += [row for row in rows if bound.sees_decision(row.doc)]
            if len(rows) < DECISIONS_AT_ONCE:
                break
            after = rows[-1].number
        return found[: asked.most]

    def why(self, order_id: str) -> Shown:
        """Why an order is as it is: the decisions that touched it, oldest first, with those of agents and the hub that
        caused them, and what a person reads of each.
        """
        own = self._store.decisions(DecisionsAsked(about=order_id))
        found = {row.number: row for row in own}
        notices = sorted((n for n in self.all("notices", Notice).values() if n.order_id == order_id), key=_said)
        named = {word for row in own for word in msgspec.json.decode(_kept(row).decision)["about"]}
        named |= {telling.decision_id for telling in self._tellings(order_id)}
        for word in sorted(named - {order_id}):
            caused = self._store.decision(word)
            if caused is not None:
                found[caused.number] = caused
        known = _Known(self._addresses(), self.all("hands", KeptHand))
        decisions = [_decision_shown(found[number], known) for number in sorted(found)]
        return {"order_id": order_id, "sentences": _read_aloud(decisions, notices), "decisions": decisions}

    def _tellings(self, order_id: str) -> tuple[Telling, ...]:
        order = self.one("orders", order_id, Order)
        visits = () if order is None else (order.stop, *order.amended)
        found = (self.one("promises", stop.stop_id, Promise) for stop in visits if stop is not None)
        return tuple(telling for promise in found if promise is not None for telling in promise.tellings)

    def decision(self, decision_id: str) -> Shown | None:
        """One decision; None when it is unknown."""
        row, bound = self._store.decision(decision_id), self._sight
        if row is None or (bound is not None and not bound.sees_decision(row.doc)):
            return None
        hand = self.one("hands", decision_id, KeptHand)
        return _decision_shown(row, _Known(self._addresses(), {} if hand is None else {decision_id: hand}))

    def _addresses(self) -> dict[str, str]:
        """What people call each stop. Decisions know stops by their ids alone."""
        orders = self.all("orders", Order).values()
        stops = (stop for order in orders for stop in (order.stop, *order.amended) if stop is not None)
        return {stop.stop_id: stop.address for stop in stops if stop.address}

    def notices(self, state: str | None) -> list[Shown]:
        """Every notice, newest last; only those of one state when one is given."""
        notices = [n for n in self.all("notices", Notice).values() if state is None or n.state == state]
        return [msgspec.to_builtins(notice) for notice in sorted(notices, key=lambda n: (n.at_ms, n.notice_id))]

    def closures(self) -> Closures:
        """The streets closed now."""
        return self.one("roads", "closures", Closures) or Closures()

    def chains(self) -> list[Shown]:
        """How far every node's chain of decisions is followed, and how often it broke."""
        return [msgspec.to_builtins(chain) for chain in self.all("chains", Chain).values()]


def _agent_shown(
    agent: AgentRecord,
    vehicle: Vehicle | None,
    plan: Plan | None,
    stops: Mapping[str, StopRecord],
    promises: Mapping[str, Promise],
    estimates: Mapping[str, Estimate],
) -> Shown:
    addresses = {} if plan is None else {stop.stop_id: stop.address for stop in plan.stops}
    own = [stop for stop in stops.values() if stop.agent == agent.agent]
    late_s = [
        (promises[stop_id].told.late_s(estimates[stop_id].p50_ms), stop_id)
        for stop_id in agent.order
        if stop_id in promises and stop_id in estimates
    ]
    coming = agent.heading_to or (agent.order[0] if agent.order else None)
    return {
        **msgspec.to_builtins(agent),
        "day": None if vehicle is None else vehicle.day,
        "depot": None if vehicle is None else vehicle.depot_id,
        "stops_done": sum(bool(stop.visits) for stop in own),
        "stops_left": sum(stop.state != "done" for stop in own),
        "stops_late": sum(seconds > 0 for seconds, _ in late_s),
        "late_s": round(max((seconds for seconds, _ in late_s), default=0)),
        "next_stop": None
        if coming is None
        else {
            "stop_id": coming,
            "address": addresses.get(coming, ""),
            **_promised(promises.get(coming), estimates.get(coming)),
        },
    }


def _promised(promise: Promise | None, estimate: Estimate | None) -> Shown:
    return {
        "slot_ms": None if promise is None else list(msgspec.structs.astuple(promise.slot)),
        "told_ms": None if promise is None else list(msgspec.structs.astuple(promise.told)),
        "estimate_ms": None if estimate is None else [estimate.p10_ms, estimate.p50_ms, estimate.p90_ms],
    }


def _order_shown(order: Order, stops: Sequence[StopRecord], fleet: Sequence[tuple[Vehicle, AgentRecord]]) -> Shown:
    """The order with its last visit: the one sold, or the one that follows a failed attempt. `visits` are of all."""
    stop = max(stops, key=lambda each: each.stop_id, default=None)
    place = order.stop if stop is None else order.stop_named(stop.stop_id)
    made = [(order.stop_named(each.stop_id), visit) for each in stops for visit in each.visits]
    return {
        "order_id": order.order_id,
        "customer_ref": order.customer_ref,
        "state": order.state,
        "received_ms": order.received_ms,
        "address": None if place is None else place.address,
        "position": None if place is None else [place.position.lat, place.position.lon],
        "confidence": None if order.confidence is None else round(order.confidence, 3),
        "place_reason": order.place_reason,
        "slot_ms": None if place is None else list(msgspec.structs.astuple(place.slot)),
        "doubts": list(order.doubts),
        "candidates": msgspec.to_builtins(order.candidates),
        "stop_id": None if place is None else place.stop_id,
        "stop_state": None if stop is None else stop.state,
        "agent": None if stop is None else stop.agent,
        "outcome": made[-1][1].outcome.value if made else None,
        "next_step": next((each.next_step for each in reversed(stops) if each.next_step), ""),
        "why_waiting": "" if stop is None or place is None else why_waiting(stop, place.slot, fleet),
        "visits": [_visit_shown(door, visit) for door, visit in made if door is not None],
    }


def _said(notice: Notice) -> tuple[int, str]:
    return notice.at_ms, notice.notice_id


def _read_aloud(decisions: Sequence[Shown], notices: Sequence[Notice]) -> list[str]:
    """What each decision says, and after it what the customer was told because of it in other words."""
    return list(
        dict.fromkeys(
            sentence
            for decision in decisions
            for sentence in (
                decision["spoken"],
                *(notice.sentence for notice in notices if notice.decision_id == decision["decision_id"]),
            )
        )
    )


def _visit_shown(place: Stop, visit: Visit) -> Shown:
    return {**msgspec.to_builtins(visit), "doubt_about_place": doubt_about_place(place, visit)}


def _outcome(stop: StopRecord | None) -> str | None:
    return stop.visits[-1].outcome.value if stop is not None and stop.visits else None


def _by_stop(heard: EstimatesHeard | None) -> dict[str, Estimate]:
    return {} if heard is None else {estimate.stop_id: estimate for estimate in heard.estimates}


def _kept(row: DecisionRow) -> KeptDecision:
    return msgspec.json.decode(row.doc, type=KeptDecision)


class _Known(NamedTuple):
    """What no record holds and people want to read: the address of each stop, the person behind each decision."""

    addresses: Mapping[str, str]
    hands: Mapping[str, KeptHand]


_PERSON = re.compile(r"\bperson:[0-9a-f]{8}\b")


def _decision_shown(row: DecisionRow, known: _Known) -> Shown:
    """The record as it was chained, and its sentence with addresses for stops and names for people."""
    kept = _kept(row)
    decision: Shown = msgspec.json.decode(kept.decision)
    hand = known.hands.get(decision["decision_id"])
    return {
        "number": row.number,
        "follows": kept.follows,
        "heard_ms": kept.heard_ms,
        "spoken": _aloud(decision["sentence"], known.addresses, hand),
        "hand": None if hand is None else {"name": hand.name, "words": hand.words},
        **decision,
    }


def _aloud(sentence: str, addresses: Mapping[str, str], hand: KeptHand | None) -> str:
    """The sentence as people read it; somebody whose name is forgotten is still a person."""
    named = sentence if hand is None else sentence.replace(hand.person, hand.name)
    said = spoken(_PERSON.sub("a person at the hub", named), addresses)
    said = said[:1].upper() + said[1:] if sentence.startswith("person:") else said
    return f"{said} In their words: {hand.words}" if hand is not None and hand.words else said
