"""The experiments of the alignment-vector paper, on the demo model."""
