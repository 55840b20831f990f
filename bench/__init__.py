"""Measurements of segfw, run from a clone: ``python -m bench VERB``. Not part of the installed package."""

from pathlib import Path

CLONE = Path(__file__).resolve().parents[1]
