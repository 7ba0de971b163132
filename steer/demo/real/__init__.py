"""The demo on a real model: its behaviours, their pairs and the rules that judge answers."""
