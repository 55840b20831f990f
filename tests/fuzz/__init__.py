"""A seeded campaign of damaged input against everything that segfw reads: ``python -m fuzz --help``."""
