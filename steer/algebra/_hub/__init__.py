"""Repositories of the Hugging Face Hub: a vector file for each domain, and a model card."""
