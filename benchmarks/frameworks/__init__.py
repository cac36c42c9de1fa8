"""Agent frameworks on this store, through its adapters, beside the SQLite stores that they bring along: one driver a framework."""
