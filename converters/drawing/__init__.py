"""A net as a picture: boxes of layers, their places, SVG, and a page to walk through it. No torch."""
