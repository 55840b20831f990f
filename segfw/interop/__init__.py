"""Masks in the formats of hospitals and viewers: what is written beside NIfTI."""
