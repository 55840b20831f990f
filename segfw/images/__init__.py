"""A scan and its place: files of every format become voxels with one affine, and masks become files again.

Arrays are (C, Z, Y, X) or (Z, Y, X), the affine leads from index (z, y, x, 1) to RAS millimetres. This room does not
know what a case, a label or a data set is.
"""
