"""Real processes that are killed in whatever order, and an audit of what they said: nothing lost, nothing twice."""
