"""What is odd in a data set: figures of every case, what stands out among them, and a repaired copy.

Knows data sets and how they are read for planning; nothing of models, training or prediction.
"""
