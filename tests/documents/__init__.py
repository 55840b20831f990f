"""The commands that stand in the documents: found, parsed by the real parser, and run."""
