"""Whether what is said of masks holds on patients that nothing was fitted or chosen on: ``python -m bench trust``."""
