"""Who may do what over HTTP: roles, keys, people signed in by their provider, bounds, and who looked at whom."""
