"""Data sets of several sources described as one: labels matched by name, and what each source drew."""
