"""Finding and loading a model with its tokenizer."""
