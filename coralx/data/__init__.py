"""Examples: where they come from, what a model does with them, in which order."""
