"""Tell each customer when to be at home: a first window, another when the van leaves it, and never too often.

When a window must move is judged by `cloud_hub.promises`; here the judgement becomes a decision, a notice to the
customer and a word to the van, all in one commit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from cloud_hub import promises
from cloud_hub.chains import Chains, Hand
from cloud_hub.events import Answer, WindowAsked
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.post import Post
from cloud_hub.promises import Judgement, Promise, Rule
from shared.ledger import Alternative, Decision, Input
from shared.messages import Estimate, WindowTold
from shared.quantities import EpochMs, TimeWindow
from shared.steps import Now
from shared.work import AgentId, Stop, StopId, Visit

TOLD_WHEN_HELD = frozenset({"imminent", "too_often", "too_soon"})
"""Rules whose forbidding is itself a decision somebody may ask about: somebody could have been told, and was not. Where
there is nothing better to tell (the slot ends, the shift is too small) nothing was decided.
"""


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
        self._mailbag.put(promise, "first", sentence, decision_id, now)

    def window_asked(self, event: WindowAsked, now: Now) -> Answer:
        """A person tells another window, anywhere inside the slot."""
        promise = next((p for p in self._memory.promises.values() if p.order_id == event.order_id), None)
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
        told = promises.told_again(promise, event.told, "by_hand", now.domain_ms, decision.decision_id)
        self._speak(told, promise.agent, "moved", f"Order {event.order_id} has another window: {windows}.", now)
        return Answer(True, named=(decision.decision_id,))

    def narrowed(
        self, stop_id: StopId, slot: TimeWindow, told: TimeWindow | None, decision: Decision, now: Now
    ) -> None:
        """The customer is there for a part of the slot only: that part is the slot now. `told` is the window that
        follows; when it is another than before, customer and van are told.
        """
        promise = self._memory.promises.get(stop_id)
        if promise is None:
            return
        narrow = msgspec.structs.replace(promise, slot=slot)
        if told is None or told == promise.told:
            self._memory.promises.put(stop_id, narrow)
            return
        sentence = f"Order {promise.order_id} comes between {self._face(told)}, as its customer asked."
        moved = promises.told_again(narrow, told, "by_hand", now.domain_ms, decision.decision_id)
        self._speak(moved, promise.agent, "moved", sentence, now)

    def put_off(self, stop_id: StopId, slot: TimeWindow, decision: Decision, now: Now) -> None:
        """The customer asked for another day: what was promised for this one is over, and they are told the hours of
        that one. Its plan will tell a window of its own.
        """
        promise = self._memory.promises.get(stop_id)
        if promise is None:
            return
        self._memory.promises.drop(stop_id)
        put_off = msgspec.structs.replace(promise, slot=slot)
        sentence = f"Order {promise.order_id} comes on another day, as its customer asked."
        told = promises.told_again(put_off, slot, "by_hand", now.domain_ms, decision.decision_id)
        self._mailbag.put(told, "moved", sentence, decision.decision_id, now)

    def expect(self, expected: Expected) -> None:
        """Remember what an agent expects until the batch is taken: only its last word is judged."""
        before = self._to_judge.get(expected.agent)
        if before is not None and before.decision_id and not expected.decision_id:
            # Within one batch a re-sequence remains the cause of the estimates that follow it.
            expected = replace(expected, cause=before.cause, decision_id=before.decision_id)
        self._to_judge[expected.agent] = expected

    def judge(self, now: Now) -> None:
        """Hold every promise against what the agents of this batch expect, and tell who must be told."""
        to_judge, self._to_judge = self._to_judge, {}
        for agent in sorted(to_judge):
            for estimate in to_judge[agent].estimates:
                self._judge(estimate, to_judge[agent], now)

    def served(self, visit: Visit) -> None:
        """The van was there: how it ended is the end of the promise."""
        promise = self._memory.promises.get(visit.stop_id)
        if promise is not None:
            ended = msgspec.structs.replace(promise, served_ms=visit.arrived_ms, outcome=visit.outcome.value)
            self._memory.promises.put(visit.stop_id, ended)

    def _judge(self, estimate: Estimate, expected: Expected, now: Now) -> None:
        promise = self._memory.promises.get(estimate.stop_id)
        stop = self._memory.stops.get(estimate.stop_id)
        if promise is None or stop is None or stop.state not in ("planned", "heading"):
            return
        judgement = promises.judge(promise, estimate, now.domain_ms, self._rule)
        if judgement.window is not None:
            self._tell(promise, judgement, estimate, expected, now)
        elif judgement.held in TOLD_WHEN_HELD and judgement.held != promise.held:
            self._hold(promise, judgement, estimate, expected, now)

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
        told = promises.told_again(promise, window, kind, now.domain_ms, decision.decision_id)
        self._speak(told, expected.agent, "breach" if kind == "breach" else "moved", sentence, now)

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

    def _speak(self, promise: Promise, agent: AgentId, kind: str, sentence: str, now: Now) -> None:
        """Have the customer and the van told the window that the promise has just got."""
        self._memory.promises.put(promise.stop_id, promise)
        self._mailbag.put(promise, kind, sentence, promise.tellings[-1].decision_id, now)
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
