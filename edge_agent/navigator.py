"""Look ahead, find a better order when the present one is in trouble, and decide whether to take it.

Models and kernel are asked by jobs; the answer to a question about a day that has moved on is dropped. What came of it
is told afterwards (`Navigator.tidings`): the navigator knows neither the link nor the page.
"""

from collections import Counter
from datetime import tzinfo

import msgspec

from edge_agent.chain import Chain
from edge_agent.foresight import Outlook, bearing_of, look
from edge_agent.lateness import news
from edge_agent.lookout import Lookout
from edge_agent.memory import Parts, SaidToHub, read_part
from edge_agent.outlook import Foreseen, Improve, Improved, Predicted
from edge_agent.reordering import Question, Reordering, Verdict, change_by, proposal_of, verdict_on
from edge_agent.round import Moment, Round
from shared.ledger import Decision
from shared.messages import AgentEvent, Decided, EstimatesMoved, Resequenced
from shared.routes import BadRoute
from shared.steps import Job, Saved
from shared.work import AgentId, StopId


class Course(msgspec.Struct, frozen=True):
    """What came of looking ahead: events for the hub in order, jobs wanted, and whether the page shows the day anew."""

    events: tuple[AgentEvent, ...]
    jobs: tuple[Job, ...]
    is_seen: bool


class Navigator:
    """What one agent expects of its day, and what it changes about it."""

    def __init__(
        self, agent: AgentId, zone: tzinfo, resequences: bool, the_round: Round, chain: Chain, saved: Saved
    ) -> None:
        """From everything the store held; `resequences` says whether this kind of machine may have another order."""
        self._agent, self._zone, self._resequences = agent, zone, resequences
        self._round, self._chain = the_round, chain
        self._said = read_part(saved.get("day", {}), "said", SaidToHub) or SaidToHub()
        self._lookout = Lookout()
        self._reordering = Reordering(agent, saved)
        self.refused: Counter[str] = Counter()
        self._events: list[AgentEvent] = []
        self._jobs: list[Job] = []
        self._is_seen = False

    @property
    def outlook(self) -> Outlook | None:
        """The last look ahead; None before the first."""
        return self._lookout.outlook

    def parts(self) -> Parts:
        """What must be written down."""
        return {("day", "said"): self._said, **self._reordering.parts()}

    def tidings(self) -> Course:
        """What came of everything since this was last asked."""
        found = Course(tuple(self._events), tuple(self._jobs), self._is_seen)
        self._events, self._jobs, self._is_seen = [], [], False
        return found

    # What has changed.

    def move_on(self, because: str) -> None:
        """The day is another than before, in words why: a new look is due.

        Questions under way were about the day as it was, and are no longer asked.
        """
        self._lookout.move_on(because, self._round.day.shown)

    def hear(self, change: str) -> None:
        """Roads or work have changed: a better order is sought even when this one is in no trouble."""
        self._reordering.hear(change)

    def begin_plan(self) -> None:
        """Another plan is driven: of its estimates the hub has been told none."""
        self._said = SaidToHub()

    def hear_window(self, stop_id: StopId) -> None:
        """The estimates stand as they are, but against another window: weigh again, and do not cry late twice."""
        risks = {known: risk for known, risk in self._said.risks.items() if known != stop_id}
        self._said = msgspec.structs.replace(self._said, risks=risks)

    def begin_anew(self) -> None:
        """Nothing seen or asked so far holds any more: the clock was another."""
        self._lookout.begin_anew()
        self._reordering.begin_anew()

    # Looking ahead.

    def look_ahead(self, at: Moment) -> None:
        """Want a prediction when something has happened, when progress deviates, or when a minute has passed."""
        work, day = self._round.work, self._round.day
        if work is None or not self._lookout.is_due(work, day, at.belief, at.now_ms):
            return
        bearing = bearing_of(work, day, self._round.learned, at.belief, self._zone, at.now_ms)
        if bearing is not None:
            self._jobs.append(self._lookout.ask(bearing))

    def looks_ahead_ms(self, now_ms: int) -> int | None:
        """When the next look is due if nothing happens, in domain time; None when none will be."""
        return self._lookout.due_ms(self._round.work, self._round.day, now_ms)

    def take_predicted(self, predicted: Predicted, at: Moment) -> None:
        """The models have answered."""
        outlook = self._lookout.take(predicted, self._round.learned, at.now_ms)
        if outlook is None:
            return
        self._is_seen = True
        self._round.note(outlook.bearing, predicted.foreseen)
        self._consider(outlook, at)
        if not self._reordering.is_asking:
            self._tell_news()

    def fail(self, job: Job) -> None:
        """A job has failed. The need stays; the next look comes with the next minute."""
        self._lookout.fail(job.need)
        if self._reordering.answered(job.need) is not None:
            self._tell_news()

    def _tell_news(self) -> None:
        """Say the estimates when they have moved.

        Not while a better order is sought: windows should move only for what another order could not save.
        """
        outlook = self.outlook
        if outlook is None or outlook.bearing.order != self._round.day.shown:
            return
        why = news(self._said.estimates, self._said.risks, outlook.estimates, outlook.stands)
        if why:
            self._said = outlook.said()
            self._events.append(EstimatesMoved(outlook.estimates, why))

    # Re-sequencing.

    def _consider(self, outlook: Outlook, at: Moment) -> None:
        """Want a better order when the present one is in trouble, inside the contract."""
        if not self._resequences:
            return
        try:
            job = self._reordering.consider(outlook, self._round.day, self._lookout.version, at.now_ms)
        except BadRoute:
            self.refused["BadRoute"] += 1
            return
        if job is not None:
            self._jobs.append(job)

    def take_improved(self, improved: Improved, at: Moment, link_is_up: bool) -> None:
        """The kernel has answered."""
        question = self._reordering.answered(improved.need)
        if question is None:
            return
        # When the day has moved on it is the answer to a question no longer asked; the next look asks anew.
        if question.version == self._lookout.version:
            self._weigh(question, improved, at, link_is_up)
        self._tell_news()

    def _weigh(self, question: Question, improved: Improved, at: Moment, link_is_up: bool) -> None:
        """Take a better order, or leave it: by the oracle, the contract and what the driver has said."""
        self._reordering.weighs(question.case, at.now_ms)
        proposal = proposal_of(question.case, improved)
        if proposal is None:
            self.refused["OrderNotAllowed"] += 1
            return
        if improved.foreseen is None:
            return
        verdict = verdict_on(question.case, proposal, self._round.day, at.now_ms)
        if verdict is None:
            return
        if not verdict.rule:
            decision = self._decide(verdict, question.job, improved, at, link_is_up)
            self._change_order(verdict, question.job, decision, improved.foreseen, at)
        elif not self._chain.has_said(verdict.rule, at.now_ms):
            # A better order is known and may not be taken: written down, because somebody may ask why.
            self._events.append(Decided(self._decide(verdict, question.job, improved, at, link_is_up)))

    def _change_order(self, verdict: Verdict, job: Improve, decision: Decision, foreseen: Foreseen, at: Moment) -> None:
        """Show the driver the better order, and tell the hub what it means for everybody."""
        day = self._round.day
        change = change_by(verdict, day, f"{self._agent}-{self._chain.books.decisions}", at.now_ms)
        self._round.reorder(change, len(verdict.proposal.new_arcs))
        bearing = msgspec.structs.replace(job.bearing, order=change.after)
        outlook = look(bearing, change.after, foreseen, self._round.learned, at.now_ms)
        self._lookout.see(outlook)
        self._reordering.succeeds()
        self._is_seen = True
        self._said = outlook.said()
        version = bearing.plan.plan_version
        self._events.append(
            Resequenced(change.change_id, version, day.shown, change.after, decision, outlook.estimates)
        )

    def _decide(self, verdict: Verdict, job: Improve, improved: Improved, at: Moment, link_is_up: bool) -> Decision:
        """Write a decision into the chain."""
        assert self.outlook is not None, "a case is made of a look ahead"
        return self._chain.decide(verdict, job, improved, self.outlook, at.belief, link_is_up, at.now_ms)
