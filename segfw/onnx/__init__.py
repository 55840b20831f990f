"""A trained model as ONNX: its networks, a description of everything around them, and a runner that needs no segfw.

``runner.py`` is handed out with the networks and imports nothing of segfw.
"""
