"""``python -m segfw`` is the same as ``segfw``."""

from segfw.cli import command

if __name__ == "__main__":
    command()
