"""A folder of cases: its labels, channels and files, how they are found and paired, and what is wrong with them.

Knows image files and where voxels are (images); nothing of networks, plans or training.
"""
