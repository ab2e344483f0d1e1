"""Whole bad days in one thread from one seed: real cores, real stores, real doors, a virtual clock and much bad luck.

`python -m tests.simulation --seeds 2000`; what is promised, how it is checked, and what is not: docs/proof.md.
"""
