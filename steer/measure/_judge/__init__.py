"""Judges of generated answers: rules, fitted or asked models, and OpenAI-compatible endpoints."""
