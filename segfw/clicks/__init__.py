"""Clicks: points inside and outside structures, their files, their maps, and simulated ones; loads no torch."""
