"""The hub's core: it takes what agents and people say, keeps one true picture, and decides what to tell whom.

It does no I/O and reads no clock. Everything it knows is a row; starting and recovering are the same path. The deciding
is done by its parts: the core hands each event to the part it concerns and gathers what they made of the batch into one
commit. A part knows the books and only those parts that stand below it here:

    reports      what agents say of their day
    undone       stops nobody came to, and parcels that were not on board
    redelivery   how it goes on after a failed visit
    detours      what one more stop does to the rest of a van's day
    visits       the visits of one order, and the one that follows the last
    lockers      which parcel lockers may help
    workdays     the local calendar
    forgetting   who is forgotten, and everything personal with them
    wishes       what customers ask for, and what comes of it
    amendments   changes of a plan an agent has already
    settling     what agents make of them
    dayplan      which agent serves which stops
    closures     closed streets, and leg times that know them
    orderbook    orders handed in and corrected
    keyring      keys of the HTTP interface, and who read what
    yard         vehicles and depots
    customers    what each customer is told
    mailbag      notices on their way
    letters      what could not be acted upon, until a person has looked at it
    gaps         what is missing of a stream for good
    post         the streams to and from agents
    chains       decisions, written down
    addressbook  who the customers are
    attempts     jobs under way, and when to try again
    memory       the books
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloud_hub.access.asked import AccessesOld, AccessesSeen, KeyAsked, KeyRevokeAsked, KeysUsed
from cloud_hub.access.keyring import Keyring
from cloud_hub.addressbook import AddressBook
from cloud_hub.amendments import NEED as AMENDMENT_NEED
from cloud_hub.amendments import Amendments
from cloud_hub.attempts import Attempts
from cloud_hub.chains import Chains
from cloud_hub.closures import ClosedStreets
from cloud_hub.customers import Customers
from cloud_hub.dayplan import DayPlan
from cloud_hub.detours import Detours
from cloud_hub.events import (
    Acked,
    AmendedLegTimesWanted,
    Answer,
    ClosuresAsked,
    CustomerSaid,
    DayPlanAsked,
    DepotsSaid,
    ForgetAsked,
    HubHeard,
    LedgerFound,
    LedgerWanted,
    LegTimesFound,
    LegTimesWanted,
    LetterRetried,
    LetterSettled,
    LockerLegTimesWanted,
    NoticeDelivered,
    NoticeFailed,
    NoticeWanted,
    OptOutSaid,
    OrderCorrected,
    OrdersHanded,
    Pace,
    Planned,
    PlanWanted,
    PresenceHeard,
    Spoke,
    Unreadable,
    VehiclesSaid,
    WindowAsked,
)
from cloud_hub.forgetting import Forgetting
from cloud_hub.gaps import Gaps
from cloud_hub.letters import Letters
from cloud_hub.lockers import Lockers
from cloud_hub.mailbag import Mailbag
from cloud_hub.memory import Memory
from cloud_hub.nextstep import Locker, RedeliveryRule
from cloud_hub.notice_rules import NoticeRule
from cloud_hub.orderbook import OrderBook
from cloud_hub.post import Post
from cloud_hub.promises import Rule
from cloud_hub.redelivery import NEED as REDELIVERY_NEED
from cloud_hub.redelivery import Redelivery
from cloud_hub.reports import Reports
from cloud_hub.sayings import WishSaid
from cloud_hub.settling import Settling
from cloud_hub.undone import Undone
from cloud_hub.visits import Visits
from cloud_hub.wishes import Wishes
from cloud_hub.workdays import Workdays
from cloud_hub.yard import Yard
from shared.costs import Costs
from shared.steps import Consequences, Envelope, Job, JobFailed, LinkDown, LinkUp, Now, Saved, Wake
from shared.work import AgentId


@dataclass(frozen=True, slots=True)
class HubIdentity:
    """What this hub is and may do, fixed for one life of its process.

    `new_boot` names the life of the store if this is its first start. `clock_face` gives an instant as people read it
    (HH:MM). `notices` says which channels are on, and when they may be used. `secret` is what codes and references to
    people are made from; without one plans carry no lock. `keep_days` is how long a customer is
    remembered after the last order has ended, 0 for ever.
    """

    region: str
    life: str
    new_boot: str
    zone: str
    clock_face: Callable[[int], str]
    notices: NoticeRule = field(default_factory=NoticeRule)
    rule: Rule = field(default_factory=Rule)
    pace: Pace = field(default_factory=Pace)
    redelivery: RedeliveryRule = field(default_factory=RedeliveryRule)
    lockers: tuple[Locker, ...] = ()
    costs: Costs = field(default_factory=Costs)
    secret: bytes = b""
    keep_days: int = 0


class HubCore:
    """The deciding part of the hub; `shared.steps` drives it."""

    def __init__(self, identity: HubIdentity, saved: Saved) -> None:
        """From everything the store holds, which is nothing at the first start. Its first step also commits the hub's
        new epoch, before anything is said under it.
        """
        face, rule = identity.clock_face, identity.rule
        self._memory = memory = Memory(saved)
        self._attempts = attempts = Attempts()
        self._post = post = Post(identity.region, identity.life, identity.new_boot, memory, saved)
        chains = Chains(memory, identity.secret)
        self._book = book = AddressBook(memory)
        self._mailbag = Mailbag(memory, attempts, book, identity.notices, face)
        self._customers = Customers(memory, chains, post, self._mailbag, rule, face)
        self._yard = Yard(memory, post)
        self._dayplan = DayPlan(
            memory, chains, post, self._customers, self._yard, attempts,
            zone=identity.zone, rule=rule, pace=identity.pace, clock_face=face, secret=identity.secret,
        )  # fmt: skip
        settling = Settling(memory, self._customers)
        self._amendments = Amendments(memory, chains, post, settling, self._dayplan, attempts, identity.zone)
        self._wishes = Wishes(memory, chains, book, self._mailbag, self._amendments, rule, face)
        self._forgetting = Forgetting(memory, chains, post, self._mailbag, self._amendments, identity.keep_days)
        workdays = Workdays(identity.zone, identity.redelivery.working_days)
        lockers = Lockers(memory, identity.lockers, identity.redelivery.locker_within_m)
        visits = Visits(memory, self._amendments, workdays)
        self._redelivery = Redelivery(
            memory, chains, self._mailbag, self._amendments, settling, attempts, visits, lockers,
            Detours(memory, identity.pace), workdays,
            rule=identity.redelivery, costs=identity.costs, told_by=rule, zone=identity.zone, clock_face=face,
        )  # fmt: skip
        self._undone = Undone(memory, chains, self._mailbag, self._yard, settling, visits, workdays, face)
        self._streets = ClosedStreets(memory, chains, post, attempts, identity.zone)
        self._orders = OrderBook(memory, chains, book)
        self._keyring = Keyring(memory, chains)
        self._letters = Letters(memory, chains, saved.get("suspects", {}))
        self._gaps = Gaps(memory, chains, post, attempts)
        self._reports = Reports(
            memory, chains, post, self._customers, self._dayplan, self._amendments, self._redelivery, self._undone,
            self._letters, self._gaps,
        )  # fmt: skip
        self._takers = self._who_takes_what()

    @property
    def boot(self) -> str:
        """The life of the store."""
        return self._post.boot

    @property
    def epoch(self) -> int:
        """How often the hub has started with this store; commands of a lower epoch are refused by agents."""
        return self._post.epoch

    @property
    def counts(self) -> Counter[str]:
        """What happened how often in this life, by name; read by anybody, written by the core."""
        return self._memory.counts

    @property
    def under_way(self) -> tuple[str, int] | None:
        """The message that is acted upon now, by its key, and how often the process broke on it if it breaks now."""
        return self._letters.under_way

    def knows(self, agent: AgentId) -> bool:
        """Whether this agent is one of ours. From any thread."""
        return agent in self._memory.agents

    def backlogs(self) -> dict[str, int]:
        """How many commands wait for each agent's acknowledgement. From any thread."""
        return self._post.backlogs()

    def presence(self, is_there: bool = True) -> Envelope:
        """What the hub says of itself: retained, and its last will when it is not there."""
        return self._post.presence(is_there)

    def handle(self, events: Sequence[Any], now: Now) -> Consequences:
        """Decide: take every event of the batch in order, then hold the promises against what has become of it."""
        made = Consequences()
        for place, event in enumerate(events):
            answer = self._take(event, now)
            if answer is not None:
                made.answers[place] = answer
        self._undone.look(now)
        self._redelivery.decide(now)
        self._customers.judge(now)
        self._forgetting.look(now)
        made.jobs = list(self._jobs(now))
        made.rows = self._memory.rows()
        made.envelopes = self._post.leaving()
        return made

    def due(self, now: Now) -> list[Envelope]:
        """Commands to send or repeat now, while the broker is within reach."""
        return self._post.due(now.real_ms)

    def wake(self, now: Now) -> Wake:
        """When a command is to be repeated, a job tried again, a notice has slept long enough, a van has been home long
        enough to be cleared up after, or it is time to look whom to forget.
        """
        moments = (self._attempts.next_at_ms(now.real_ms), self._post.due_at_ms(now.real_ms))
        naps = (self._mailbag.wake_ms(), self._undone.wake_ms(now.domain_ms), self._forgetting.wake_ms())
        return Wake(_first(naps), _first(moments))

    def _take(self, event: Any, now: Now) -> Answer | None:
        take = self._takers.get(type(event))
        if take is None:
            raise TypeError(f"the hub's core was handed {type(event).__name__}, expected one of cloud_hub.events")
        return take(event, now)

    def _who_takes_what(self) -> dict[type, Callable[[Any, Now], Answer | None]]:
        return {
            LinkUp: self._post.link_came,
            LinkDown: self._post.link_went,
            PresenceHeard: self._presence_heard,
            HubHeard: self._post.hub_heard,
            LedgerFound: self._gaps.ledger_found,
            Acked: self._post.acked,
            Spoke: self._reports.spoke,
            Unreadable: self._reports.unreadable,
            LetterRetried: self._reports.retried,
            LetterSettled: self._letters.settled,
            OrdersHanded: self._orders.handed,
            OrderCorrected: self._orders.corrected,
            VehiclesSaid: self._yard.vehicles_said,
            DepotsSaid: self._yard.depots_said,
            DayPlanAsked: self._dayplan.asked,
            Planned: self._dayplan.found,
            ClosuresAsked: self._streets.asked,
            LegTimesFound: self._leg_times_found,
            WindowAsked: self._customers.window_asked,
            CustomerSaid: self._book.said,
            ForgetAsked: self._forgetting.asked,
            OptOutSaid: self._book.opted_out,
            WishSaid: self._wishes.said,
            NoticeDelivered: self._mailbag.delivered,
            NoticeFailed: self._mailbag.failed,
            KeyAsked: self._keyring.asked,
            KeyRevokeAsked: self._keyring.revoked,
            KeysUsed: self._keyring.used,
            AccessesSeen: self._keyring.seen,
            AccessesOld: self._keyring.old,
            JobFailed: self._job_failed,
        }

    def _presence_heard(self, event: PresenceHeard, now: Now) -> None:
        self._gaps.presence_heard(event, now)
        self._post.presence_heard(event, now)

    def _leg_times_found(self, event: LegTimesFound, now: Now) -> None:
        if event.need.startswith(AMENDMENT_NEED):
            self._amendments.found(event, now)
        elif event.need.startswith(REDELIVERY_NEED):
            self._redelivery.found(event, now)
        else:
            self._streets.found(event, now)

    def _job_failed(self, event: JobFailed, now: Now) -> None:
        self._memory.counts[f"job_failed.{type(event.job).__name__}"] += 1
        takers: dict[type, Callable[[JobFailed, Now], None]] = {
            PlanWanted: self._dayplan.job_failed,
            LedgerWanted: self._gaps.job_failed,
            LegTimesWanted: self._streets.job_failed,
            AmendedLegTimesWanted: self._amendments.job_failed,
            LockerLegTimesWanted: self._redelivery.job_failed,
            NoticeWanted: self._mailbag.job_failed,
        }
        takers[type(event.job)](event, now)

    def _jobs(self, now: Now) -> Iterable[Job]:
        """What is needed and nobody works on yet."""
        wanted = [
            *self._dayplan.jobs(now),
            *self._redelivery.jobs(now),
            *self._amendments.jobs(now),
            *self._streets.jobs(now.real_ms),
            *self._mailbag.jobs(now),
            *self._gaps.jobs(now),
        ]
        for job in wanted:
            self._attempts.begin(job.need)
            yield job


def _first(moments: Iterable[int | None]) -> int | None:
    return min((moment for moment in moments if moment is not None), default=None)
