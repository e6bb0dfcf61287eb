"""What drives training: phases and callbacks."""
