"""What trains: backends behind one Protocol. Imported by workers only."""
