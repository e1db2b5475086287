"""The loop: who is born, what is trained next, what a stage decides."""
