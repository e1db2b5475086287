"""What is read off predictions: figures and their intervals."""
