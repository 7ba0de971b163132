"""The experiments of the alignment-vector paper (arXiv 2410.19206) on the toy model."""
