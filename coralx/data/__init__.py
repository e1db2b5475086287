"""Rows and examples: how tables are read, split and put in order."""
