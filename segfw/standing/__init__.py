"""What lies at a path and how far it is: told from small files alone, without PyTorch and without opening an image.

``recognise.py`` has the dict of everything that is known; each kind is a file with its record, which is the answer.
"""
