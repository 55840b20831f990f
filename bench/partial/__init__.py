"""What cases annotated in part teach: ``python -m bench partial``."""
