"""Phase IV from inside: turns of a model, or calls of an agent that a user has already."""
