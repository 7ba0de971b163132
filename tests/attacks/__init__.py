"""Attacks that once succeeded, each as a small program with the right outcome."""
