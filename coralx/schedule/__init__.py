"""Who trains how much: stages, their budgets, stop rules and promotion."""
