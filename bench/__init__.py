"""Measurements of segfw, run from a clone: ``python -m bench VERB``. Not part of the installed package."""
