"""Pictures as inline SVG: no script, no font and no image from outside."""
