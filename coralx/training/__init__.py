"""Adapters trained on a frozen base with torch. Imported by workers only."""
