"""What goes on inside phase IV: turns of a model, or calls of an agent that a user has already."""
