"""Long runs of nonsense against every door, each begun by `make fuzz`."""
