"""Where the decoder blocks, the final norm and the unembedding of a model are."""
