"""The same done by nnU-Net v2 and by segfw: time, memory, and how far the results agree."""
