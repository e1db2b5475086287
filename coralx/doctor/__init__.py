"""What `coralx doctor` looks at: the machine, a config's needs, a run's files."""
