"""Masks against masks: overlap, surfaces and lesions of every case, means with their spread, tables and a report.

The room knows files of masks and what their labels mean. It knows nothing of networks or of how a mask was made, and
loads no torch: masks of any program can be scored.
"""
