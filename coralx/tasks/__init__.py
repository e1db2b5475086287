"""What a model is asked to do: one file for each `model.task`."""
