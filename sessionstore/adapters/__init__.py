"""Adapters: the store as the memory of agent frameworks. Each module needs the extra of its name."""
