"""Say which orders wait for a person, and why: what no rule goes on with.

Where a customer's page says that somebody is looking at it, the order is in this list.
"""

from typing import Any

from cloud_hub.fleet import Order, StopRecord
from cloud_hub.web.picture import Picture
from cloud_hub.wishes import last_visit
from shared.work import Outcome


def why_person(order: Order, record: StopRecord | None) -> str:
    """What a person is needed for; "" when nobody is. `record` is what became of the order's last visit."""
    if order.is_forgotten:
        return ""
    if order.state == "doubtful":
        return "nobody is sure where it goes: correct it"
    if order.state != "accepted" or record is None or record.state != "done" or not record.visits:
        return ""
    outcome = record.visits[-1].outcome
    is_settled = outcome.is_delivery or outcome is Outcome.COLLECTED
    # Only what is the sender's already can go back: a collection given up is nobody's but ours to tell.
    if is_settled or record.next_step not in ("", "return"):
        return ""
    return f"its last visit ended '{outcome.value}' and nothing follows: tell the customer how it goes on"


def waiting_for_people(picture: Picture) -> list[dict[str, Any]]:
    """Every order that needs somebody, the one that has waited longest first."""
    stops = picture.all("stops", StopRecord)
    found = []
    for order in picture.all("orders", Order).values():
        stop_id = last_visit(order)
        record = None if stop_id is None else stops.get(stop_id)
        why = why_person(order, record)
        if why:
            since_ms = order.received_ms if order.state == "doubtful" or record is None else record.changed_ms
            found.append({"order_id": order.order_id, "since_ms": since_ms, "why": why, "doubts": list(order.doubts)})
    return sorted(found, key=lambda one: (one["since_ms"], one["order_id"]))
