"""Numbers of masks: sizes, shapes and intensities of structures, with a status that says what they are worth.

Legend: masks are (Z, Y, X) in canonical orientation; ``axes_mm`` (3, 3) has the steps along z, y and x as columns, in
RAS millimetres, so that oblique and sheared grids are measured as they are.
"""
