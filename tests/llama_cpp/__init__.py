"""Control vectors in llama.cpp itself: `make llama-cpp`, which builds it."""
