"""Days as an agent shows them, in every state the driver's page knows, with long addresses and many parcels."""

from typing import Any

HOUR_MS = 3_600_000
NOW_MS = 1_795_500_000_000 - 1_795_500_000_000 % (24 * HOUR_MS) + 9 * HOUR_MS


def a_stop(number: int, address: str, parcels: int = 2, **more: Any) -> dict[str, Any]:
    """A stop told for the hour after the one `number` half hours from now."""
    opens = NOW_MS + number * HOUR_MS // 2
    codes = [f"WW:HKI-88412{number}{k}07" for k in range(parcels)]
    settled = {
        "stop_id": f"s{number}", "order_id": f"o{number}", "address": address, "position": [60.1706, 24.9522],
        "slot": [opens, opens + 4 * HOUR_MS], "told": [opens, opens + HOUR_MS], "service": "hand_over",
        "service_s": 200, "floor": 0, "has_lift": False, "is_business": False, "open_hours": None, "door_group": "",
        "litres": 4.0,
        "parcels": codes, "stow": {code: f"B{k + 1}" for k, code in enumerate(codes)}, "door_code": "", "note": "",
        "safe_place": "", "neighbour": "", "attempt": 1,
        "estimate": [opens + 10 * 60_000, opens + 20 * 60_000, opens + 35 * 60_000],
    }  # fmt: skip
    return settled | more


STOPS = [
    a_stop(1, "Liisankatu 20 B 34, 00170 Helsinki", service="signature", floor=4, has_lift=True, door_code="2468#",
           note="Ring twice, the dog is friendly. Please do not leave it downstairs.",
           safe_place="Bike shed, left shelf", neighbour="B 36", attempt=2),
    a_stop(2, "Pohjoinen Hesperiankatu 15, 00260 Helsinki", is_business=True,
           open_hours=[NOW_MS, NOW_MS + 7 * HOUR_MS],
           estimate=[NOW_MS + 2 * HOUR_MS, NOW_MS + 2 * HOUR_MS, NOW_MS + 3 * HOUR_MS]),
    a_stop(3, "Kaarina Maununtyttärenkadunpolku 144-146 C 112, Ylämummola, 00520 Helsinki", parcels=9, floor=3),
    a_stop(4, "Mannerheimintie 5, 00100 Helsinki", service="age_check"),
    a_stop(5, "Fredrikinkatu 42", service="collection"),
    a_stop(6, "Sturenkatu 8, 00510 Helsinki", service="leave_safe"),
]  # fmt: skip

DAY: dict[str, Any] = {
    "agent": "van-1", "plan_version": 1, "shift": "under_way", "link_is_up": True, "is_moving": False,
    "done": [{"stop_id": "s0", "outcome": "attempted", "left_ms": NOW_MS}] * 4, "depart_ms": NOW_MS - HOUR_MS,
    "shift_end_ms": NOW_MS + 7 * HOUR_MS, "heading_to": None, "at_stop": None, "question": None, "scans": [],
    "break": {"earliest_ms": NOW_MS + HOUR_MS, "latest_ms": NOW_MS + 2 * HOUR_MS, "duration_s": 1800, "taken": False},
    "depot": {"name": "Terminal Pasila", "position": [60.2, 24.9], "gateway": [60.2, 24.9], "stem_s": 0},
    "change": None, "stops": STOPS,
}  # fmt: skip
CHANGE: dict[str, Any] = {
    "change_id": "c1", "at_ms": NOW_MS - 600_000, "why": "Running 9 min late at Mannerheimintie 5",
    "about": "Mannerheimintie 5, 00100 Helsinki",
    "before": ["s1", "s2", "s3", "s4", "s5", "s6"], "after": ["s1", "s4", "s2", "s3", "s5", "s6"],
    "reason": {"cause": "late", "cause_min": 9, "cause_stop": "s4", "cause_ms": 0, "cause_count": 1, "moved": 1,
               "effect": "keeps_windows", "effect_count": 2, "effect_min": 0, "worse_count": 1, "worse_min": 4},
}  # fmt: skip
QUESTION = {"stop_id": "s2", "instead_of": "s1"}


def at(stop: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The driver stands at this stop, and it is the first."""
    return {"stops": [stop, *STOPS[4:]], "at_stop": stop["stop_id"], "heading_to": stop["stop_id"], **more}


STATES: dict[str, dict[str, Any]] = {
    "no work": {"plan_version": None, "stops": [], "done": []},
    "ready": {"shift": "waiting", "done": []},
    "next": {},
    "changed": {"change": CHANGE},
    "asked": {"question": QUESTION},
    "moving": {"is_moving": True, "heading_to": "s1"},
    "moving, long": {"is_moving": True, "heading_to": "s3", "stops": STOPS[2:]},
    "here, alone": at(STOPS[0], link_is_up=False, scans=STOPS[0]["parcels"][:1]),
    "here, many parcels": at(STOPS[2], change=CHANGE),
    "on a break": {"shift": "on_break"},
    "all done": {"stops": [], "on_board": 3},
    "ended": {"shift": "ended"},
}

SHEETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "menu": ({}, ("Menu",)),
    "another stop": ({}, ("Pohjoinen Hesperiankatu 15",)),
    "end of shift": ({}, ("Menu", "End the shift")),
    "why keep": ({"change": CHANGE}, ("Keep the old order",)),
    "what changed": (at(STOPS[0], change=CHANGE), ("New order",)),
    "scan": (at(STOPS[0]), ("Scan 2 parcels",)),
    "sign": (at(STOPS[0], scans=STOPS[0]["parcels"]), ("Sign",)),
    "age": (at(STOPS[3], scans=STOPS[3]["parcels"]), ("Check the age",)),
    "photo": (at(STOPS[5], scans=STOPS[5]["parcels"]), ("In the safe place",)),
    "other": (at(STOPS[0]), ("Other…",)),
    "reasons": (at(STOPS[0]), ("Other…", "Nobody there, no way in")),
    "own words": (at(STOPS[0]), ("Other…", "Refused", "Another reason")),
    "part": (at(STOPS[2]), ("Other…", "Only a part")),
    "not on board": (at(STOPS[0]), ("Other…", "Not on board")),
}
"""Each sheet of the page: the state it is opened from, and what is pressed to open it."""
