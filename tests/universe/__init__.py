"""Whole days in one thread from one seed: real cores, a virtual clock, and the simulator's town as the truth."""
