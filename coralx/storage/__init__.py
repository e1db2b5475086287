"""The run folder: ledger, history, lock and checkpoints."""
