"""Memory backends: places that keep whole conversations as documents."""
