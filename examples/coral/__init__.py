"""A file on Coral's Edge TPU, as its users run it."""
