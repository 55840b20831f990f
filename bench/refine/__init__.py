"""What clicks are worth to a mask: ``python -m bench refine``, with simulated clicks and points of real scribbles."""
