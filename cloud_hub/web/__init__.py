"""What people and other systems ask the hub over HTTP."""
