"""Orders of the days the demo shows."""
