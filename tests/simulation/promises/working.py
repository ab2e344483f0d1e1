"""What drivers and hub believe of the same day: visits, plans, roads, and the record of every decision."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cloud_hub import ledgers
from cloud_hub.fleet import AgentRecord, Chain, Closures, StopRecord
from cloud_hub.planning import with_told
from cloud_hub.promises import Promise as Told
from edge_agent.dialogue import OutcomeSaid, Reply, Said
from edge_agent.memory import Books, Day
from shared import wire
from shared.contracts import Plan
from shared.messages import (
    Resequenced,
)
from shared.quantities import TimeWindow
from shared.steps import Row
from shared.work import AgentId
from tests.simulation.promises.promise import Facts, Promise, dead_letters, hub_store, is_forgotten

if TYPE_CHECKING:
    from tests.simulation.machines import AgentMachine, Machine
    from tests.simulation.universe import Universe


class VisitsOnce(Promise):
    """Every visit a driver was told is recorded is at the hub, once, with the same outcome and at the right time."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self._recorded: dict[tuple[str, str], str] = {}
        self._when: dict[tuple[str, str], tuple[int, int]] = {}

    def replied(self, van: str, key: str, said: Said, reply: Any) -> None:
        if isinstance(said, OutcomeSaid) and isinstance(reply, Reply) and reply.status == 200:
            former = self._recorded.get((van, said.stop_id))
            if former is not None and former != said.outcome.value:
                self.breaks(f"{van} recorded {said.stop_id} as {former}, then as {said.outcome.value}")
            self._recorded[van, said.stop_id] = said.outcome.value
            spoken_ms = self.facts.said_ms.get(key, self.facts.now_ms())
            self._when.setdefault((van, said.stop_id), (spoken_ms, self.facts.now_ms()))

    def ended(self, universe: "Universe") -> None:
        room = universe.facts.hub_kept.room("stops")
        records = {key: msgspec.json.decode(doc, type=StopRecord) for key, doc in room.items()}
        letters = dead_letters(universe)
        for (van, stop_id), outcome in sorted(self._recorded.items()):
            record = records.get(stop_id)
            if record is None and is_forgotten(universe, stop_id):
                continue
            found = () if record is None else record.visits
            same = [visit for visit in found if visit.outcome.value == outcome]
            is_gone = is_forgotten(universe, stop_id)  # Then the bytes of a dead letter are gone, too.
            theirs = [each for each in letters if each.sender == van]
            buried = [each for each in theirs if f'"{stop_id}"' in each.payload or (is_gone and stop_id in each.why)]
            if len(same) != 1 and not buried:
                self.breaks(f"{van} recorded {stop_id} as {outcome}, the hub has {[v.outcome.value for v in found]}")
            if buried:
                continue  # Another van has it by the books: whose visit counts a person has to say.
            first_ms, last_ms = self._when[van, stop_id]
            # How long a machine was off between two lives that did not know the time nobody can find out.
            unknown_ms = universe.agents[AgentId(van)].never_known_ms
            for visit in same:
                if not first_ms - unknown_ms <= visit.left_ms <= last_ms + unknown_ms:
                    self.breaks(f"{van} left {stop_id} at {first_ms} to {last_ms}, the hub has {visit.left_ms}")
        for stop_id, record in sorted(records.items()):
            if len(record.visits) != len({visit.arrived_ms for visit in record.visits}):
                self.breaks(f"the hub has a visit of {stop_id} twice")


class SamePlan(Promise):
    """Agent and hub hold the same plan version, the same stops to come, and the same windows told."""

    def ended(self, universe: "Universe") -> None:
        hub = universe.facts.hub_kept
        plans = {key: msgspec.json.decode(doc, type=Plan) for key, doc in hub.room("plans").items()}
        records = {key: msgspec.json.decode(doc, type=StopRecord) for key, doc in hub.room("stops").items()}
        told = {key: msgspec.json.decode(doc, type=Told) for key, doc in hub.room("promises").items()}
        for name, machine in universe.agents.items():
            kept = machine.kept.room("plan").get("plan")
            own = None if kept is None else msgspec.json.decode(kept, type=Plan)
            theirs = plans.get(name)
            versions = tuple(0 if plan is None else plan.plan_version for plan in (own, theirs))
            if versions[0] != versions[1]:
                self.breaks(f"{name} drives plan {versions[0]}, the hub believes {versions[1]}")
            if own is None:
                continue
            day = msgspec.json.decode(machine.kept.room("day").get("day", b"{}"), type=Day)
            to_come = set(day.shown)
            believed = {key for key, record in records.items() if record.agent == name and record.state != "done"}
            if day.shift != "ended" and to_come != believed:
                self.breaks(f"{name} has {sorted(to_come)} to come, the hub believes {sorted(believed)}")
            self._same_windows(name, machine, own, told, to_come & believed)

    def _same_windows(
        self, name: str, machine: "AgentMachine", plan: Plan, told: Mapping[str, Told], stops: set[Any]
    ) -> None:
        later = machine.kept.room("told")
        for stop in plan.stops:
            if stop.stop_id not in stops or stop.stop_id not in told:
                continue
            newer = later.get(stop.stop_id)
            window = stop.told if newer is None else msgspec.json.decode(newer, type=TimeWindow)
            promised = told[stop.stop_id].told
            if window not in (promised, with_told(stop, promised).told):
                self.breaks(f"{name} holds {stop.stop_id} to {window}, the customer was told {promised}")


class HeadStays(Promise):
    """A re-sequence never takes away the stop the van heads for or stands at."""

    def committed(self, machine: "Machine", rows: Sequence[Row]) -> None:
        if machine.name not in self.facts.agents:
            return
        for row in rows:
            if row.room != "outbox" or row.value is None or b'"resequenced"' not in row.value:
                continue
            message = wire.decode_numbered(row.value).message
            if isinstance(message, Resequenced):
                day = msgspec.json.decode(machine.kept.room("day")["day"], type=Day)
                head = day.at_stop or day.heading_to
                if head is not None and message.after[:1] != (head,) and head in message.before:
                    self.breaks(f"{machine.name} puts {message.after[:1]} before {head}, where it is under way")


class RoadsKnown(Promise):
    """When all is quiet every van on the road drives by leg times that know the closed streets."""

    def ended(self, universe: "Universe") -> None:
        hub = universe.facts.hub_kept
        version = max((msgspec.json.decode(d, type=Closures).version for d in hub.room("roads").values()), default=0)
        for name, machine in universe.agents.items():
            record = msgspec.json.decode(hub.room("agents")[name], type=AgentRecord)
            plan = machine.kept.room("plan")
            if record.shift == "ended" or "plan" not in plan:
                continue
            if msgspec.json.decode(plan["plan"], type=Plan).shift_end_ms < universe.clock.now_ms:
                continue  # Other leg times are of no use behind the shift's end.
            legs = msgspec.json.decode(plan["plan"], type=Plan).legs.roads_version
            if "legs" in plan:
                legs = max(legs, msgspec.json.decode(plan["legs"])["roads_version"])
            if legs != version:
                self.breaks(f"{name} drives by roads {legs}, closed streets are at {version}")


class DecisionsHold(Promise):
    """Every decision chain verifies from its first record to its last, and has no break."""

    def ended(self, universe: "Universe") -> None:
        store = hub_store(universe)
        chains = {key: msgspec.json.decode(doc, type=Chain) for key, doc in store.documents("chains")}
        verdict = ledgers.verified(store.chained(), chains)
        store.close()
        bad = [chain for chain in verdict.chains if chain.wrong]
        if bad or not verdict.holds:
            self.breaks(f"{bad[0].node}: {bad[0].first_bad}: {bad[0].wrong}")
        broken = [chain.node for chain in chains.values() if chain.breaks]
        if broken:
            self.breaks(f"the chain of {broken[0]} is broken")
        for name, machine in universe.agents.items():
            books = machine.kept.room("agent").get("books")
            own = Books() if books is None else msgspec.json.decode(books, type=Books)
            kept = chains.get(name, Chain(name))
            if (kept.count, kept.link) != (own.decisions, own.link):
                self.breaks(f"{name} made {own.decisions} decisions, the hub has {kept.count} of them")
