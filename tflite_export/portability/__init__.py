"""Which sums runtimes round differently, how to keep clear of them, and the proof that a plan does."""
