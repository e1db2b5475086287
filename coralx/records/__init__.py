"""What crosses a boundary or is stored: genomes, jobs, results, verdicts, events."""
