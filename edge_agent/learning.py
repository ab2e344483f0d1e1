"""Learn from how legs and stops really went: the day's pace, and the offsets that keep the models honest."""

import msgspec

from edge_agent.memory import Learned
from edge_agent.outlook import Bearing, Foreseen, Quantiles
from shared.features import Pace
from shared.work import Stop, StopId, Visit

NOT_LEARNED_FROM_S = 30.0
"""A leg or stop planned shorter than this says nothing about pace."""


class Said(msgspec.Struct, frozen=True):
    """What the model said of a leg or a stop while it was still whole: P10, P50 and P90 seconds."""

    stop_id: StopId
    quantiles_s: tuple[float, ...]


class Sayings(msgspec.Struct, frozen=True):
    """What to hold the model to: its first word on the leg under way and on the stop under way.

    A restart forgets them: one lesson fewer for the offsets.
    """

    leg: Said | None = None
    stop: Said | None = None


def noted(sayings: Sayings, bearing: Bearing, foreseen: Foreseen) -> Sayings:
    """Keep what the model said of the leg or stop under way when it was new, to learn from how it ends."""
    if bearing.under_way is None or foreseen.model == "none":
        return sayings
    if bearing.at_stop_since_ms is None:
        said = Said(bearing.under_way, tuple(foreseen.legs[0].tolist()))
        return sayings if sayings.leg is not None else msgspec.structs.replace(sayings, leg=said)
    said = Said(bearing.under_way, tuple(foreseen.stops[0].tolist()))
    return sayings if sayings.stop is not None else msgspec.structs.replace(sayings, stop=said)


def on_another_day(learned: Learned, day: str) -> Learned:
    """Pace is the day's and begins anew; the offsets are the models' and stay."""
    return msgspec.structs.replace(learned, day=day, legs=Pace(), stops=Pace())


def from_leg(learned: Learned, sayings: Sayings, stop_id: StopId, actual_s: float, planned_s: float) -> Learned:
    """What is known after a leg to this stop."""
    if planned_s < NOT_LEARNED_FROM_S or actual_s <= 0:
        return learned
    learned = msgspec.structs.replace(learned, legs=learned.legs.learned(actual_s, planned_s))
    said = sayings.leg
    if said is None or said.stop_id != stop_id:
        return learned
    return msgspec.structs.replace(learned, leg_offset=learned.leg_offset.learned(said.quantiles_s, actual_s))


def from_stop(learned: Learned, sayings: Sayings, stop: Stop, visit: Visit) -> Learned:
    """What is known after a visit; waiting for the slot to open is no part of it."""
    actual_s = (visit.left_ms - max(visit.arrived_ms, stop.slot.opens_ms)) / 1000
    if stop.service_s < NOT_LEARNED_FROM_S or actual_s < NOT_LEARNED_FROM_S:
        return learned
    learned = msgspec.structs.replace(learned, stops=learned.stops.learned(actual_s, stop.service_s))
    said = sayings.stop
    if said is None or said.stop_id != stop.stop_id:
        return learned
    return msgspec.structs.replace(learned, stop_offset=learned.stop_offset.learned(said.quantiles_s, actual_s))


def corrected(learned: Learned, foreseen: Foreseen) -> tuple[Quantiles, Quantiles]:
    """Legs and stops as they should be told now, moved by the offsets; the plan's own times stay as they are."""
    if foreseen.model == "none":
        return foreseen.legs, foreseen.stops
    return learned.leg_offset.moved(foreseen.legs), learned.stop_offset.moved(foreseen.stops)
