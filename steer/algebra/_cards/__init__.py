"""The cards of vectors, gates and compositions."""
