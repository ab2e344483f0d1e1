"""The people of the day: drivers who mostly follow their page, and customers who are mostly in."""

from dataclasses import dataclass

import msgspec

from firmware_sim.luck import Luck
from shared.quantities import Position, TimeWindow
from shared.work import LOCKER_DOOR


class Errand(msgspec.Struct, frozen=True):
    """What the driver reads on the page about one stop: where, for whom, and what is to be done there.

    `safe_place` and `neighbour` are those the customer named, "" for none.
    """

    stop_id: str
    address: str
    position: Position
    slot: TimeWindow
    told: TimeWindow
    service: str = "hand_over"
    service_s: int = 300
    floor: int = 0
    has_lift: bool = False
    is_business: bool = False
    open_hours: TimeWindow | None = None
    door_group: str = ""
    parcels: tuple[str, ...] = ()
    litres: float = 0.0
    safe_place: str = ""
    neighbour: str = ""

    @property
    def is_locker(self) -> bool:
        """Whether the parcels go into a locker: nobody has to be there."""
        return self.door_group.startswith(LOCKER_DOOR)

    @property
    def may_be_left(self) -> bool:
        """Whether the parcels may be left where the customer said, without meeting anybody."""
        return self.service == "leave_safe" or (self.service == "hand_over" and bool(self.safe_place))


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver's ways.

    `pace` multiplies driving times and `handiness` the work at the door. `strays` is the chance, at each stop, of
    going elsewhere than the page shows first; `refuses` that of turning a changed order down. `break_lean` says
    where in the break's window the break is liked: 0 as early as allowed, 1 as late.
    """

    name: str
    pace: float
    handiness: float
    walks_mps: float
    strays: float
    refuses: float
    break_lean: float


def driver(luck: Luck, name: str) -> Driver:
    """The driver of this name on this day: most obey, some have a mind of their own."""
    own = luck.of("driver", name)
    temper = own.uniform("temper")
    return Driver(
        name,
        pace=own.lognormal("pace", 1.0, 0.06),
        handiness=own.lognormal("handiness", 1.0, 0.13),
        walks_mps=own.uniform("walks", 1.15, 1.45),
        strays=0.06 if temper > 0.75 else 0.015,
        refuses=0.35 if temper > 0.85 else 0.06,
        break_lean=own.uniform("break", 0.1, 0.7),
    )


REFUSALS = (
    "I am nearly at the other one",
    "the customer asked me to come first",
    "the parcels for that one are at the very front of the load",
    "I would have to turn round in that street",
)


def answer(who: Driver, change_id: str, luck: Luck) -> tuple[str, str]:
    """What the driver makes of a changed order: ("seen", "") or ("refused", why)."""
    own = luck.of("change", change_id)
    if own.chance("refuses", who.refuses):
        return "refused", own.pick("why", REFUSALS)
    return "seen", ""


EXPLANATIONS = ("parcel_at_hand", "road", "knows_better", "customer_asked", "other")


def explanation(stop_id: str, luck: Luck) -> str | None:
    """Why the driver went to this stop when another was shown first; None from those who do not answer."""
    own = luck.of("explains", stop_id)
    return own.pick("why", EXPLANATIONS, (3, 2, 3, 1, 1)) if own.chance("answers", 0.75) else None


def next_errand(who: Driver, shown: list[Errand], luck: Luck) -> Errand:
    """Which of the shown errands the driver goes to: the first, or now and then the one after it."""
    own = luck.of("heads", shown[0].stop_id, len(shown))
    if len(shown) > 1 and own.chance("strays", who.strays):
        return shown[1]
    return shown[0]


@dataclass(frozen=True, slots=True)
class Door:
    """What happens behind one door when it is rung at one hour.

    `answers_after_s` counts from the first ring, queues in shops included; `neighbour_after_s` from the neighbour's.
    """

    is_answered: bool
    answers_after_s: float
    neighbour_takes: bool
    neighbour_after_s: float
    refuses: bool
    is_damaged: bool
    missing: tuple[str, ...]


def door(errand: Errand, luck: Luck, now_ms: int, hour: float, weekday: int, forced_out: bool = False) -> Door:
    """Who is there when the driver rings now: at `hour` of local time, 0 to 24, on this weekday, 0 for Monday.

    People wait for the window they were told and get on with their lives outside it; a shop is there while it is open.
    `forced_out` is bad luck ordered through the control port: nobody answers.
    """
    own = luck.of("door", errand.stop_id)
    is_in = not forced_out and not own.chance("out", _chance_out(errand, now_ms, hour, weekday))
    if errand.is_business:
        after_s = own.lognormal("queue", 32.0 if 10.5 <= hour < 15 else 20.0, 0.8)
    else:
        after_s = own.lognormal("opens", 16.0, 0.5) + (
            own.uniform("slow", 50, 160) if own.chance("is slow", 0.10) else 0
        )
    return Door(
        is_answered=is_in,
        answers_after_s=min(after_s, 420.0),
        neighbour_takes=own.chance("neighbour", _chance_neighbour(errand)),
        neighbour_after_s=own.uniform("neighbour opens", 35, 110),
        refuses=own.chance("refuses", 0.006),
        is_damaged=own.chance("damaged", 0.003),
        missing=tuple(code for code in errand.parcels if own.chance(f"missing {code}", 0.003)),
    )


def _chance_neighbour(errand: Errand) -> float:
    """A neighbour whom the customer has named usually knows of it."""
    if errand.neighbour:
        return 0.85
    return 0.5 if errand.is_business else 0.35


def _chance_out(errand: Errand, now_ms: int, hour: float, weekday: int) -> float:
    if errand.open_hours is not None and not errand.open_hours.holds(now_ms):
        return 1.0
    if errand.is_business:
        return 0.01 if errand.open_hours is not None or 8 <= hour < 18 else 0.6
    usual = 0.16 if hour < 9 else 0.26 if hour < 16 else 0.12
    if weekday >= 5:
        usual *= 0.7
    return usual * (0.4 if errand.told.holds(now_ms) else 1.5)
