"""What trains, behind one Protocol, and which backend is taken. No training library is loaded."""
