"""Put the question of another order to the kernel, judge its answer, and write down why it was taken or left."""

from zlib import crc32

import msgspec

from edge_agent.foresight import Outlook
from edge_agent.lateness import (
    Proposal,
    Trouble,
    alternatives,
    arcs,
    forbidden,
    is_worth_asking,
    is_worth_it,
    minutes,
    needed_gain_s,
    propose,
    reason,
    trouble,
)
from edge_agent.memory import Books, Change, Day, News, Parts, read_part
from edge_agent.outlook import (
    SLOT_MARGIN,
    Bearing,
    Improve,
    Improved,
    orders_beyond,
    route_problem,
    with_margins,
)
from edge_agent.reasons import WISHES, Reason, because, in_english
from edge_agent.sensing import Belief
from edge_agent.turns import lately_refused
from shared.ledger import Decision, Input
from shared.quantities import EpochMs
from shared.routes import RouteProblem, evaluate
from shared.steps import Saved
from shared.work import AgentId, StopId

KERNEL_MS = 50

ROADS_HAVE_CHANGED = "the roads have changed"
WORK_HAS_CHANGED = "the work has changed"
"""What is news around an order, as a decision's cause says it when the order is in no trouble."""


class Case(msgspec.Struct, frozen=True):
    """The order of what lies beyond the stop under way, and what is wrong with it.

    `problem` is the rest of the day with margins, as the kernel is given it; `plain` the same without them. `guard` is
    the day by the slots sold, with margins: no order is taken that does worse by it.
    """

    bearing: Bearing
    problem: RouteProblem
    plain: RouteProblem
    guard: RouteProblem
    trouble: Trouble
    news: str = ""

    @property
    def start(self) -> StopId:
        """Where what may be re-ordered begins; empty for the depot."""
        return self.bearing.under_way or self.bearing.from_place or StopId("")

    def question(self, need: str, seed: int) -> Improve:
        """The job that looks for a better order."""
        return Improve(need, self.bearing, self.problem, KERNEL_MS, seed)


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a proposal that is worth it: taken, or forbidden by a rule (its name; empty when taken).

    `words` say what was done and why to a person, `reason` by which rule or allowance; `arcs_used` is the day's budget
    spent when it is taken. `why` is the same as `words` in numbers, of a proposal that is taken.
    """

    case: Case
    proposal: Proposal
    rule: str
    words: str
    reason: str
    arcs_used: int
    why: Reason | None = None

    @property
    def kind(self) -> str:
        """The decision's kind."""
        return "keep" if self.rule else "resequence"

    @property
    def cause(self) -> str:
        """What was wrong with the order before."""
        return trouble(self.case.problem, self.proposal.before_cost).words or self.case.news


class Question(msgspec.Struct, frozen=True):
    """A better order asked for, and the version of the day it was asked of."""

    job: Improve
    version: int
    case: Case


class Reordering:
    """When one agent asks for a better order. One question at a time; a restart asks again."""

    def __init__(self, agent: AgentId, saved: Saved) -> None:
        """From everything the store held."""
        self._agent = agent
        self._news = read_part(saved.get("day", {}), "news", News) or News()
        self._question: Question | None = None
        self._questions = 0
        self._asked_in_vain: tuple[int, int] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a better order is sought."""
        return self._question is not None

    def parts(self) -> Parts:
        """What must be written down."""
        return {("day", "news"): self._news if self._news.of else None}

    def hear(self, news: str) -> None:
        """Something around the order has changed: the kernel is to be asked even when the order is in no trouble."""
        self._news = News(news)

    def consider(self, outlook: Outlook, day: Day, version: int, now_ms: int) -> Improve | None:
        """Want a better order when the present one is in trouble, inside the contract; None when it may stay, or a
        better one is sought already. Raises BadRoute.
        """
        plan = outlook.bearing.plan
        is_driving = day.shift in ("under_way", "on_break")
        is_overdue = day.shift == "waiting" and now_ms > plan.depart_ms
        if self.is_asking or not (is_driving or is_overdue):
            return None
        case = case_of(outlook, self._news.of)
        if case is None:
            return None
        if not self._news.of and not is_worth_asking(case.trouble, plan.freedom, self._asked_in_vain, now_ms):
            return None
        self._questions += 1
        seed = crc32(f"{self._agent}/{plan.plan_version}/{now_ms}".encode())
        job = case.question(f"improve/{self._questions}", seed)
        self._question = Question(job, version, case)
        return job

    def answered(self, need: str) -> Question | None:
        """The question of this need is asked no more, answered or failed; None when it was not asked."""
        question = self._question
        if question is None or question.job.need != need:
            return None
        self._question = None
        return question

    def weighs(self, case: Case, now_ms: int) -> None:
        """An answer is weighed: what was news is none any more, and the same trouble is not asked about at once."""
        self._asked_in_vain = now_ms, case.trouble.weighted_s
        self._news = News()

    def succeeds(self) -> None:
        """A better order was found: whatever is wrong with it may be asked about at once."""
        self._asked_in_vain = None

    def begin_anew(self) -> None:
        """Nothing asked so far holds any more: the clock was another."""
        self._question = self._asked_in_vain = None


def case_of(outlook: Outlook, news: str = "") -> Case | None:
    """The present order as a case; None when fewer than two stops may be re-ordered. Raises BadRoute.

    Slots come first: while one is in danger they alone count, for a told window can be told anew. When none is, told
    windows are what is looked after, and no slot may suffer for it.

    `news` says what has changed around it, for an order that is in no trouble.
    """
    bearing = outlook.bearing
    if len(orders_beyond(bearing)) < 2:
        return None
    sold = route_problem(bearing, outlook.spans, is_by_slot=True)
    guard = with_margins(sold, bearing, outlook.if_it_stays, SLOT_MARGIN)
    harm = trouble(guard, evaluate(guard, guard.order))
    if harm.weighted_s >= bearing.plan.freedom.least_gain_s:
        return Case(bearing, guard, sold, guard, harm, news)
    plain = route_problem(bearing, outlook.spans)
    problem = with_margins(plain, bearing, outlook.if_it_stays)
    return Case(bearing, problem, plain, guard, trouble(problem, evaluate(problem, problem.order)), news)


def proposal_of(case: Case, improved: Improved) -> Proposal | None:
    """The kernel's answer weighed by the oracle; None when it is no allowed order."""
    return propose(case.problem, orders_beyond(case.bearing), case.start, improved.nodes)


def verdict_on(case: Case, proposal: Proposal, day: Day, now_ms: int) -> Verdict | None:
    """By the contract and what the driver has said; None when the proposal is not worth the disturbance."""
    freedom = case.bearing.plan.freedom
    since_ms = None if day.changed_ms is None else now_ms - day.changed_ms
    needed_s = needed_gain_s(freedom, day.arcs_used, since_ms)
    if not is_worth_it(proposal, case.plain, needed_s, case.guard):
        return None
    turned_down = [refused.new_arcs for refused in lately_refused(day, now_ms)]
    rule = forbidden(proposal, freedom, day.arcs_used, turned_down)
    if rule is not None:
        name, why = rule
        words = f"Kept the order although another would save {minutes(proposal.gain_s)} weighted min: {why}"
        return Verdict(case, proposal, name, words, f"forbidden: {why}", day.arcs_used)
    used = day.arcs_used + len(proposal.new_arcs)
    allowed = (
        f"allowed: saves {proposal.gain_s} weighted s of at least {round(needed_s)},"
        f" {used} of {freedom.arcs_per_day} arcs changed today"
    )
    grounds = reason(case.problem, case.plain, proposal)
    return Verdict(case, proposal, "", in_english(grounds), allowed, used, grounds)


def change_by(verdict: Verdict, day: Day, change_id: str, now_ms: EpochMs) -> Change:
    """What the driver is shown: the new order beside the one he last agreed to."""
    proposal, shown = verdict.proposal, day.shown
    head = shown[: len(shown) - len(proposal.before)]
    agreed = shown if day.change is None else day.change.before
    to_come = set(shown)
    agreed = tuple(stop_id for stop_id in agreed if stop_id in to_come)
    rest_agreed = agreed[len(head) :] if agreed[: len(head)] == head else agreed
    start = verdict.case.start
    known = set(arcs(start, rest_agreed))
    new_arcs = tuple(arc for arc in arcs(start, proposal.after) if arc not in known)
    why = verdict.why
    wish = None if day.change is None else day.change.reason
    if why is not None and wish is not None and wish.cause in WISHES and verdict.case.news == WORK_HAS_CHANGED:
        why = because(wish, why)
    words = verdict.words if why is None or why is verdict.why else in_english(why, verdict.case.bearing.zone)
    return Change(change_id, now_ms, words, agreed, head + proposal.after, new_arcs, why)


def decision_on(
    verdict: Verdict,
    agent: AgentId,
    books: Books,
    inputs: tuple[Input, ...],
    model: str,
    seed: int,
    iterations: int,
    now_ms: EpochMs,
) -> Decision:
    """The verdict as a link of the agent's chain: what was known, what could have been done, what was."""
    case, proposal = verdict.case, verdict.proposal
    return Decision(
        decision_id=f"{agent}/{books.decisions + 1}",
        by=agent,
        kind=verdict.kind,
        at_ms=now_ms,
        sentence=verdict.words,
        cause=verdict.cause,
        inputs=inputs,
        alternatives=alternatives(case.problem, case.plain, proposal.before, proposal),
        chosen=0 if verdict.rule else 1,
        verdict=verdict.reason,
        approved_by=f"contract of plan {case.bearing.plan.plan_version}",
        about=proposal.before,
        model=model,
        seed=seed,
        iterations=iterations,
        previous=books.link,
    )


def inputs_of(
    bearing: Bearing, outlook: Outlook, belief: Belief | None, link_is_up: bool, now_ms: int
) -> tuple[Input, ...]:
    """What the decision read, how old it was and how good; `outlook` is the latest look, `bearing` the one asked of."""
    looked_s = (now_ms - bearing.now_ms) / 1000
    found = [
        Input("plan", f"version {bearing.plan.plan_version}"),
        Input("leg times", f"roads version {bearing.legs.roads_version}"),
        Input("pace", f"legs x{bearing.pace:.2f}, stops x{bearing.dwell_pace:.2f}", looked_s),
    ]
    if belief is not None and belief.position is not None:
        found.append(Input("position", "last believed fix", belief.position_age_s or 0.0, belief.quality))
    if outlook.stands:
        worst = max(outlook.stands, key=lambda stands: (stands.late_s, stands.stop_id))
        words = f"{worst.stop_id}: {round(worst.late_s)} s expected, {round(100 * worst.p_late)} % to miss its window"
        quality = "plan's own times" if outlook.foreseen.model == "none" else "model"
        found.append(Input("worst lateness", words, looked_s, quality))
    found.append(Input("link", "up" if link_is_up else "down: decided alone"))
    return tuple(found)
