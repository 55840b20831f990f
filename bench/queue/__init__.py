"""What the review queue is worth and what it costs: ``python -m bench queue``."""
