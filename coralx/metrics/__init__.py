"""What is computed from predictions: figures and their intervals."""
