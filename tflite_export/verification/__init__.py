"""What a file computes, beside its twin and its training model."""
