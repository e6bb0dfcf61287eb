"""What single devices ask of a file: checkers, and what is written beside it. One module a device."""
