"""How each `model.task` encodes examples, trains on them and scores them: one module a task."""
