"""Who is bred from whom: the space, operators, ranking, NSGA-II, NSGA-III. Pure functions."""
