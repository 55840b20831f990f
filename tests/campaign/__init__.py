"""Kills, two at once, full disks, damaged and lying files: tried from a seed, and counted."""
