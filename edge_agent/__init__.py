"""The agent on a machine: reads it, foresees its day, re-sequences its work, and goes on without a network."""
