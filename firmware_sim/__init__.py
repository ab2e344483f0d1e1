"""Machines that speak the real device protocols, and the world they move in."""
