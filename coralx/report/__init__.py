"""What a person reads: the live view and the report."""
