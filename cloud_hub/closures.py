"""Close streets and open them again, and have every van on the road drive by leg times that know it."""

from collections.abc import Iterable

import msgspec

from cloud_hub import planning
from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains, Hand
from cloud_hub.events import Answer, ClosuresAsked, LegTimesFound, LegTimesWanted
from cloud_hub.fleet import AgentRecord, Closures
from cloud_hub.memory import ONLY_PAGE, Memory
from cloud_hub.post import Post
from shared.ledger import Input
from shared.messages import RoadsChanged
from shared.steps import JobFailed, Now
from shared.work import AgentId

FAILURES_TO_RECORD = 4


class ClosedStreets:
    """The closed streets of the region; every change of them makes each van's leg times old."""

    def __init__(self, memory: Memory, chains: Chains, post: Post, attempts: Attempts, zone: str) -> None:
        self._memory = memory
        self._chains = chains
        self._post = post
        self._attempts = attempts
        self._zone = zone
        if ONLY_PAGE not in memory.closures:
            memory.closures.put(ONLY_PAGE, Closures())

    def asked(self, event: ClosuresAsked, now: Now) -> Answer:
        """A person closes ways or opens them."""
        closures = self._memory.closed_streets
        if event.is_closed:
            ways = {**closures.ways, **dict.fromkeys(event.ways, event.why)}
        else:
            ways = {way: why for way, why in closures.ways.items() if way not in set(event.ways)}
        if ways == closures.ways:
            return Answer(True, "nothing changed: it was so already")
        self._memory.closures.put(ONLY_PAGE, Closures(closures.version + 1, ways))
        who = self._chains.person(event.by)
        did = "closed" if event.is_closed else "opened"
        decision = self._chains.decide(
            now,
            "street_closed" if event.is_closed else "street_opened",
            f"{who} {did} {event.street or 'a street'}. The leg times of every van are asked again.",
            f"{who} asked",
            inputs=(Input("ways", " ".join(map(str, event.ways))),),
            about=tuple(f"way/{way}" for way in event.ways),
            verdict="a person's word",
            hand=Hand(event.by, event.why),
        )
        return Answer(True, named=(decision.decision_id,))

    def jobs(self, real_ms: int) -> Iterable[LegTimesWanted]:
        """Leg times to ask the roads for now: of every van whose own are older than the closures."""
        closures = self._memory.closed_streets
        for agent, plan in self._memory.plans.items():
            record = self._memory.agents[agent]
            need = self._need(record, plan.plan_version)
            is_old = record.legs_version < closures.version and record.shift != "ended"
            if not is_old or not self._attempts.may_begin(need, real_ms):
                continue
            stops = {stop.stop_id: stop for stop in plan.stops}
            yield LegTimesWanted(
                need, AgentId(agent), plan.plan_version, self._zone, plan.depot,
                tuple(stops[stop_id] for stop_id in plan.legs.places), plan.depart_ms, plan.shift_end_ms,
                tuple(sorted(closures.ways)), closures.version,
            )  # fmt: skip

    def found(self, event: LegTimesFound, now: Now) -> None:
        """Tell the van its new leg times, unless it has another plan or newer ones by now."""
        self._attempts.settle(event.need)
        plan = self._memory.plans.get(event.agent)
        record = self._memory.agents.get(event.agent)
        if plan is None or record is None or plan.plan_version != event.plan_version:
            return
        if event.legs.roads_version <= record.legs_version or event.need != self._need(record, plan.plan_version):
            return  # Of other roads, or without the stops an amendment has added; asked again if it is needed.
        closures = self._memory.closed_streets
        why = ", ".join(dict.fromkeys(closures.ways.values())) or "all streets are open again"
        # A stop may have been taken off the plan since they were asked for.
        legs = planning.narrowed(event.legs, [stop.stop_id for stop in plan.stops])
        self._memory.plans.put(event.agent, msgspec.structs.replace(plan, legs=legs))
        self._memory.change_agent(record, legs_version=event.legs.roads_version)
        if closures.ways:
            self._memory.detours_ms[event.agent] = now.domain_ms
        self._post.say(event.agent, RoadsChanged(plan.plan_version, event.legs, why), now)

    def _need(self, record: AgentRecord, plan_version: int) -> str:
        return f"legs/{record.agent}/{plan_version}.{record.amended}/{self._memory.closed_streets.version}"

    def job_failed(self, event: JobFailed, now: Now) -> None:
        """The roads did not answer; after some attempts that is put on record, and asking goes on."""
        wanted = event.job
        assert isinstance(wanted, LegTimesWanted)
        if self._attempts.fail(wanted.need, now.real_ms) == FAILURES_TO_RECORD:
            self._chains.decide(
                now,
                "leg_times_failed",
                f"{wanted.agent} drives on with its old leg times: {event.why}.",
                f"the roads are at version {wanted.roads_version}",
                about=(wanted.agent,),
                verdict="asked again every two minutes; a person should look",
            )
