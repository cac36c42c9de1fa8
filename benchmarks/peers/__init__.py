"""The store beside other session stores and queues on SQLite, each in an environment of its own, all in turns within one run."""
