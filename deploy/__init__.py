"""Bringing it up: the broker, the one-machine demo, identities and packaging."""
