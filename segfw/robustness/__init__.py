"""How masks change when images do."""
