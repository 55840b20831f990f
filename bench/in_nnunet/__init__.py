"""What runs in nnU-Net's own environment. Nothing here imports segfw, which is not installed there."""
