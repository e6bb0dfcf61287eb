"""Pure functions: the papers' formulas, apart from layers and variables."""
