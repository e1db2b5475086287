"""A run: its folder, its ledger, its checkpoints, and the loop that drives it."""
