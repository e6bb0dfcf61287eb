"""Pure functions: the papers' formulas, apart from layers and variables, and in `kernels` what training runs of them.

All compute in float32 and work eagerly, in graphs and under XLA.
"""
