"""Vector files: one self-describing `.safetensors` file holds all that is needed to apply a vector.

The format is described in `vectors/README.md`. Reading trusts nothing: sizes, names, dtypes,
numbers and checksums are verified before a vector is built, and nothing is unpickled.
"""
