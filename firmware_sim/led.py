"""A van whose driver is somebody at the page: it drives to where the page says it heads, and reports nothing.

For tests and for showing the page by hand: satellites, map and standstill are real, scans and outcomes are whoever's
has the page before them.
"""

from firmware_sim.vehicle import Van
from firmware_sim.wheel import Day, Told, Wheel


class Led(Wheel):
    """Follows the page. Once under way it drives on to the stop's door, whatever the page says meanwhile."""

    _driven_to: str | None = None

    def act(self, van: Van, day: Day | None, now_ms: int) -> Told:
        """Set off when the page has a new heading, go home when it has ended the shift."""
        van.taken()
        if day is None or not van.is_free or van.phase == "done":
            return Told()
        if day.shift == "ended":
            van.go_home(now_ms)
            return Told()
        heading = next((errand for errand in day.stops if errand.stop_id == day.heading_to), None)
        if heading is not None and heading.stop_id != self._driven_to:
            self._driven_to = heading.stop_id
            van.drive_to(heading, now_ms)
        return Told()
