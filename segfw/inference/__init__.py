"""From images to masks by trained networks: one image or many, one model or several that are averaged.

The room knows tiles, memory, output folders that several processes share, and stored probabilities. It knows nothing of
training, and gets its models from the room ``model``. ``predictor`` begins with a page that follows an image through
all of it, with a drawing.
"""
