"""Vector files: one self-describing `.safetensors` file, as `vectors/README.md` describes it."""
