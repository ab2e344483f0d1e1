"""Make a visit of what was scanned, sensed and said at a door."""

from collections.abc import Iterable

from edge_agent.dialogue import OutcomeSaid
from edge_agent.memory import Day
from edge_agent.whereabouts import Near
from shared.labels import LabelRefused, read_label
from shared.quantities import EpochMs, Position
from shared.work import Proof, Stop, Visit


def parcel_read(text: str, expected: Iterable[Stop]) -> str:
    """The barcode of a label as it is written in plans.

    A text with no reading, or more than one, is settled by the parcels of the stops expected. Raises LabelRefused when
    none of theirs reads exactly so either.
    """
    try:
        return read_label(text).canonical
    except LabelRefused:
        bare = text.strip(" \r\n\t\0")
        for stop in expected:
            for parcel in stop.parcels:
                if bare in (parcel.barcode, parcel.barcode.partition(":")[2]):
                    return parcel.barcode
        raise


def visit_of(
    stop: Stop, said: OutcomeSaid, day: Day, near: Near | None, position: Position | None, now_ms: EpochMs
) -> Visit:
    """The visit that ends now with what was said; it began when the van came to stand, or at least near."""
    own = {parcel.barcode for parcel in stop.parcels}
    scanned = tuple(code for code in day.scans if code in own)
    proof = Proof(scanned, position, now_ms, said.signature, said.photo, said.age_checked)
    began_ms = _began_ms(stop, day, near, now_ms)
    return Visit(stop.stop_id, said.outcome, began_ms, now_ms, proof, said.reason, said.parcels_left)


def _began_ms(stop: Stop, day: Day, near: Near | None, now_ms: EpochMs) -> EpochMs:
    if day.at_stop == stop.stop_id and day.arrived_ms is not None:
        return day.arrived_ms
    return EpochMs(near.since_ms) if near is not None and near.stop_id == stop.stop_id else now_ms
