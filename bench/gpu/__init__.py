"""Ten minutes on a CUDA device: what of segfw's path is right there, how much time and memory it takes, in one JSON."""
