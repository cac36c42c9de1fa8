"""The remote API that a store tells its events to: where it is, its key, and what is told. Plain values, no network."""
