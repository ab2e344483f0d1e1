"""Tell each customer when to be at home: a first window, another when the van leaves it, and never too often.

When a window must move is judged by `cloud_hub.promises`; here the judgement becomes a decision, a notice to the
customer and a word to the van, all in one commit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from cloud_hub import promises
from cloud_hub.chains import Chains, Hand
from cloud_hub.contacts import Why
from cloud_hub.events import Answer, WindowAsked
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.post import Post
from cloud_hub.promises import Judgement, Promise, Rule
from shared.ledger import Alternative, Input
from shared.messages import Estimate, WindowTold
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Now
from shared.work import AgentId, Stop, StopId, Visit

TOLD_WHEN_HELD = frozenset({"imminent", "too_vague", "too_often", "too_soon"})
"""Rules whose forbidding is itself a decision somebody may ask about: somebody could have been told, and was not. Where
there is nothing better to tell (the slot ends, the shift is too small) nothing was decided.
"""

DETOUR_MS = 45 * 60_000
"""A street that was closed three quarters of an hour ago is no news to any van's estimates."""

OVERRUN_S = 480
LATELY_MS = 90 * 60_000
"""Stops of the last hour and a half that took eight minutes more than planned explain a window that moves by ten."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an agent expects, said when and why. `decision_id` is the agent's own decision behind it, "" for none."""

    agent: AgentId
    said_ms: EpochMs
    estimates: tuple[Estimate, ...]
    cause: str
    decision_id: str = ""


class Customers:
    """Those who wait, and what they have been told."""

    def __init__(
        self,
        memory: Memory,
        chains: Chains,
        post: Post,
        mailbag: Mailbag,
        rule: Rule,
        clock_face: Callable[[int], str],
    ) -> None:
        self._memory = memory
        self._chains = chains
        self._post = post
        self._mailbag = mailbag
        self._rule = rule
        self._clock = clock_face
        self._to_judge: dict[AgentId, Expected] = {}
        self._on_the_road: dict[AgentId, None] = {}

    def tell_first(
        self, stop: Stop, agent: AgentId, told: TimeWindow, estimate: Estimate, decision_id: str, now: Now
    ) -> None:
        """This agent will serve the stop. Who has been told a window keeps it; who has not is told this one."""
        known = self._memory.promises.get(stop.stop_id)
        if known is not None:
            self._memory.promises.put(stop.stop_id, msgspec.structs.replace(known, agent=agent))
            return
        unsaid = Promise(stop.stop_id, stop.order_id, agent, stop.slot, told)
        promise = promises.told_again(unsaid, told, "first", now.domain_ms, decision_id)
        self._memory.promises.put(stop.stop_id, promise)
        sentence = (
            f"Order {stop.order_id} comes between {self._face(told)}, expected at {self._clock(estimate.p50_ms)}."
        )
        self._mailbag.put(promise, "day", sentence, decision_id, now, estimate=estimate)

    def window_asked(self, event: WindowAsked, now: Now) -> Answer:
        """A person tells another window, anywhere inside the slot."""
        # After a failed visit another is promised: the one still to come is meant.
        own = [p for p in self._memory.promises.values() if p.order_id == event.order_id]
        promise = max(own, key=lambda p: p.served_ms is None, default=None)
        if promise is None:
            return Answer(False, f"order '{event.order_id}' has no window told yet: it is not planned")
        if promise.served_ms is not None:
            return Answer(False, f"order '{event.order_id}' has been visited")
        if event.told.opens_ms >= event.told.closes_ms or not event.told.within(promise.slot):
            return Answer(False, f"window {self._face(event.told)} is not inside the slot {self._face(promise.slot)}")
        windows = f"{self._face(event.told)} instead of {self._face(promise.told)}"
        who = self._chains.person(event.by)
        decision = self._chains.decide(
            now,
            "window_by_hand",
            f"{who} told order {event.order_id} another window: {windows}.",
            f"{who} asked",
            about=(promise.order_id, promise.stop_id, promise.agent),
            verdict="a person may tell any window inside the slot",
            hand=Hand(event.by),
        )
        told = promises.told_again(promise, event.told, "by_hand", now.domain_ms, decision.decision_id, "shop_asked")
        self._speak(told, promise.agent, f"Order {event.order_id} has another window: {windows}.", now)
        return Answer(True, named=(decision.decision_id,))

    def comes_as_told_before(self, stop_id: StopId, now: Now) -> None:
        """A change this customer had been told of came too late for the van: tell them when it comes after all.

        The promise is again the one from before the change; the van may have left its window since.
        """
        promise, stop = self._memory.promises[stop_id], self._memory.stops[stop_id]
        estimate = self._estimate_of(promise)
        judgement = None if estimate is None else promises.judge(promise, estimate, now.domain_ms, self._rule)
        is_breach = judgement is not None and judgement.kind == "breach"
        window = promise.told if judgement is None else judgement.wanted or promise.told
        sentence = f"Order {promise.order_id} comes between {self._face(window)} all the same."
        decision = self._chains.decide(
            now,
            "change_came_too_late",
            sentence,
            f"{stop.agent} did not take the change its customer had been told of",
            inputs=(Input("visit", stop.state),),
            verdict="who was told otherwise is told again",
            about=(promise.order_id, stop_id, stop.agent),
        )
        kind: promises.Kind = "breach" if is_breach else "by_hand"
        told = promises.told_again(
            promise, window, kind, now.domain_ms, decision.decision_id, "under_way_already"
        )  # fmt: skip
        self._speak(told, stop.agent, sentence, now, estimate)

    def _estimate_of(self, promise: Promise) -> Estimate | None:
        heard = self._memory.estimates.get(promise.agent)
        expected = () if heard is None else heard.estimates
        return next((estimate for estimate in expected if estimate.stop_id == promise.stop_id), None)

    def expect(self, expected: Expected) -> None:
        """Remember what an agent expects until the batch is taken: only its last word is judged."""
        before = self._to_judge.get(expected.agent)
        if before is not None and before.decision_id and not expected.decision_id:
            # Within one batch a re-sequence remains the cause of the estimates that follow it.
            expected = replace(expected, cause=before.cause, decision_id=before.decision_id)
        self._to_judge[expected.agent] = expected
        self._on_the_road[expected.agent] = None

    def sets_out(self, agent: AgentId) -> None:
        """The van is under way to its next stop: somebody may want to know that it is near."""
        self._on_the_road[agent] = None

    def judge(self, now: Now) -> None:
        """Hold every promise against what the agents of this batch expect, and tell who must be told."""
        to_judge, self._to_judge = self._to_judge, {}
        for agent in sorted(to_judge):
            for estimate in to_judge[agent].estimates:
                self._judge(estimate, to_judge[agent], now)
        moving, self._on_the_road = self._on_the_road, {}
        for agent in moving:
            self._tell_the_near(agent, now)

    def served(self, visit: Visit, now: Now) -> None:
        """The van was there: how it ended is the end of the promise."""
        promise = self._memory.promises.get(visit.stop_id)
        if promise is not None:
            ended = msgspec.structs.replace(promise, served_ms=visit.arrived_ms, outcome=visit.outcome.value)
            self._memory.promises.put(visit.stop_id, ended)
            self._mailbag.over(promise.order_id, now)

    def _tell_the_near(self, agent: AgentId, now: Now) -> None:
        """Who wants to know is told once that the van is on its way, when it is few stops and minutes away."""
        record, heard = self._memory.agents.get(agent), self._memory.estimates.get(agent)
        rule = self._mailbag.rule
        if record is None or heard is None or not record.has_begun or rule.on_its_way == "never":
            return
        heading = () if record.heading_to is None else (record.heading_to,)
        coming = tuple(dict.fromkeys((*heading, *record.order)))[: rule.on_its_way_stops]
        latest_ms = now.domain_ms + rule.on_its_way_min * promises.MINUTE_MS
        for estimate in heard.estimates:
            promise = self._memory.promises.get(estimate.stop_id)
            stop = self._memory.stops.get(estimate.stop_id)
            if promise is None or stop is None or promise.is_near_told or estimate.stop_id not in coming:
                continue
            is_stale = estimate.p90_ms < now.domain_ms
            is_near = stop.state in ("planned", "heading") and estimate.p50_ms <= latest_ms and not is_stale
            if is_near and self._mailbag.wants_near(promise.order_id):
                near = self._memory.promises.put(promise.stop_id, msgspec.structs.replace(promise, is_near_told=True))
                sentence = f"Order {promise.order_id} is near: {agent} is expected at {self._clock(estimate.p50_ms)}."
                self._mailbag.put(near, "on_its_way", sentence, "", now, estimate=estimate)

    def _judge(self, estimate: Estimate, expected: Expected, now: Now) -> None:
        promise = self._memory.promises.get(estimate.stop_id)
        stop = self._memory.stops.get(estimate.stop_id)
        if promise is None or stop is None or stop.state not in ("planned", "heading") or stop.is_leaving:
            return
        if estimate.p90_ms < now.domain_ms:
            return  # What a van that was away expected an hour ago; its newer word follows.
        judgement = promises.judge(promise, estimate, now.domain_ms, self._rule)
        if judgement.window is not None and self._goes_to_a_locker(promise):
            return  # Nobody waits there: the customer hears when it can be fetched.
        if judgement.window is not None:
            self._tell(promise, judgement, estimate, expected, now)
        elif judgement.held in TOLD_WHEN_HELD and judgement.held != promise.held:
            self._hold(promise, judgement, estimate, expected, now)

    def _goes_to_a_locker(self, promise: Promise) -> bool:
        order = self._memory.orders.get(promise.order_id)
        stop = None if order is None else order.stop_named(promise.stop_id)
        return stop is not None and stop.is_at_locker

    def _tell(self, promise: Promise, judgement: Judgement, estimate: Estimate, expected: Expected, now: Now) -> None:
        window, kind = judgement.window, judgement.kind
        assert window is not None
        assert kind is not None
        face = self._face
        arrival = f"{expected.agent} is expected at {self._clock(estimate.p50_ms)}"
        if kind == "breach":
            sentence = (
                f"Order {promise.order_id} leaves its slot {face(promise.slot)}: {arrival}; "
                f"the customer is told {face(window)} instead of {face(promise.told)}."
            )
        else:
            sentence = (
                f"The window of order {promise.order_id} moves from {face(promise.told)} to {face(window)}: {arrival}."
            )
        decision = self._chains.decide(
            now,
            "promise_breached" if kind == "breach" else "window_moved",
            sentence,
            expected.cause,
            inputs=self._inputs(promise, estimate, expected, now),
            alternatives=_choices(promise.told, window, estimate, face),
            chosen=1,
            verdict=judgement.verdict,
            about=_about(promise, expected),
        )
        why = self._why(promise, estimate, expected, now)
        told = promises.told_again(promise, window, kind, now.domain_ms, decision.decision_id, why)
        self._speak(told, expected.agent, sentence, now, estimate)

    def _why(self, promise: Promise, estimate: Estimate, expected: Expected, now: Now) -> Why:
        """What held the van up, as far as the hub can tell and a customer may know."""
        if estimate.p50_ms < promise.told.opens_ms:
            return "early"
        detour_ms = self._memory.detours_ms.get(expected.agent)
        if detour_ms is not None and now.domain_ms - detour_ms <= DETOUR_MS:
            return "street_closed"
        if self._overrun_s(expected.agent, now) >= OVERRUN_S:
            return "earlier_stop_took_longer"
        # A van that is late and did not lose the time at doors lost it on the road.
        is_held_up = not expected.decision_id or "late at" in expected.cause
        return "traffic" if is_held_up else "route_changed"

    def _overrun_s(self, agent: AgentId, now: Now) -> float:
        """By how much this van's last stops, the present one included, took longer than planned."""
        plan = self._memory.plans.get(agent)
        if plan is None:
            return 0.0
        since_ms = now.domain_ms - LATELY_MS
        spent_s = 0.0
        for planned in plan.stops:
            record = self._memory.stops.get(planned.stop_id)
            if record is None or record.agent != agent:
                continue
            stays = [(visit.arrived_ms, visit.left_ms) for visit in record.visits if visit.left_ms >= since_ms]
            if record.state == "arrived":
                stays.append((record.changed_ms, now.domain_ms))
            spent_s += sum((left_ms - arrived_ms) / 1000 - planned.service_s for arrived_ms, left_ms in stays)
        return spent_s

    def _hold(self, promise: Promise, judgement: Judgement, estimate: Estimate, expected: Expected, now: Now) -> None:
        wanted = judgement.wanted
        assert wanted is not None
        self._chains.decide(
            now,
            "window_held",
            f"Order {promise.order_id} keeps its window {self._face(promise.told)} although {expected.agent} is "
            f"expected at {self._clock(estimate.p50_ms)}: {judgement.verdict.removeprefix('held back: ')}.",
            expected.cause,
            inputs=self._inputs(promise, estimate, expected, now),
            alternatives=_choices(promise.told, wanted, estimate, self._face),
            chosen=0,
            verdict=judgement.verdict,
            about=_about(promise, expected),
        )
        self._memory.promises.put(promise.stop_id, msgspec.structs.replace(promise, held=judgement.held))

    def _speak(
        self, promise: Promise, agent: AgentId, sentence: str, now: Now, estimate: Estimate | None = None
    ) -> None:
        """Have the customer and the van told the window that the promise has just got."""
        self._memory.promises.put(promise.stop_id, promise)
        last = promise.tellings[-1]
        self._mailbag.put(promise, "changed", sentence, last.decision_id, now, why=last.why, estimate=estimate)
        self._post.say(agent, WindowTold(promise.stop_id, promise.told), now)

    def _inputs(self, promise: Promise, estimate: Estimate, expected: Expected, now: Now) -> tuple[Input, ...]:
        age_s = max(0, now.domain_ms - expected.said_ms) / 1000
        quality = "good" if age_s <= 120 else "old"
        clock = self._clock
        return (
            Input(
                "estimate P10/P50/P90",
                f"{clock(estimate.p10_ms)}/{clock(estimate.p50_ms)}/{clock(estimate.p90_ms)}",
                age_s,
                quality,
            ),
            Input("window told", self._face(promise.told)),
            Input("slot", self._face(promise.slot)),
            Input("moves so far", str(promise.moves)),
        )

    def _face(self, window: TimeWindow) -> str:
        return f"{self._clock(window.opens_ms)}-{self._clock(window.closes_ms)}"


def _about(promise: Promise, expected: Expected) -> tuple[str, ...]:
    cause = (expected.decision_id,) if expected.decision_id else ()
    return (promise.order_id, promise.stop_id, expected.agent, *cause)


def _choices(
    told: TimeWindow, wanted: TimeWindow, estimate: Estimate, face: Callable[[TimeWindow], str]
) -> tuple[Alternative, ...]:
    """Leaving the window and moving it, each with the seconds by which the estimate would miss it."""
    return tuple(
        Alternative(what, cost_s=_missed_s(window, estimate), late_s=window.late_s(estimate.p50_ms))
        for what, window in ((f"keep {face(told)}", told), (f"tell {face(wanted)}", wanted))
    )


def _missed_s(window: TimeWindow, estimate: Estimate) -> float:
    return max(0, estimate.p90_ms - window.closes_ms, window.opens_ms - estimate.p50_ms) / 1000
