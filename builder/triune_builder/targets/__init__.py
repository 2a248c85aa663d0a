"""What an engine can be built for: a folder a target."""
