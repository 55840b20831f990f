"""What every other room stands on, and what knows nothing of medicine.

Records and the errors of a user, files that are whole or absent, work over many cases in threads or on a cluster,
devices, processes that train together, memory, progress, statistics that bad cases cannot move, and the frame of
pages. It does not know what an image, a label or a network is.
"""
