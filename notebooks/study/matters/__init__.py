"""What matters to a direction, and whether there is a better one; explored on validation pairs."""
