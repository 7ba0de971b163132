"""The parameters of a model by their own names, one at a time, from memory or from disk."""
