"""A user's model, read, given quantizers, and given back."""
