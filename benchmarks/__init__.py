"""The benchmarks of sessionstore: the store beside plain sqlite3, in turns. Run `python -m benchmarks --help`."""
