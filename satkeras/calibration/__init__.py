"""Data in; ranges and starting values out."""
