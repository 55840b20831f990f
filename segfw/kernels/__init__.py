"""Triton kernels that take the place of several PyTorch operations each; nothing needs them, and they are asked for.

A file of this room that imports Triton is imported only where ``has_triton`` says so. Every kernel has an oracle in
plain PyTorch operations in the room that uses it; ``agrees`` compares the two on the device before a run relies on the
kernel.
"""
