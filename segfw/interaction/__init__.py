"""Masks corrected by clicks: a refining network around each click, rules that a person can rely on, and undo."""
