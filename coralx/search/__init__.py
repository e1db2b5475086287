"""Who is bred from whom: the space, its operators, and NSGA-II."""
