"""One driver a peer: how its users save a turn, read it again and take from its queue. Each module imports its own peer only."""
