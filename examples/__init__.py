"""Example models and scripts for satkeras."""
