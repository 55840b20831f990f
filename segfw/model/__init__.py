"""A trained thing on disk: a work folder or one file, its plan, weights, card, selection and postprocessing.

``source`` opens it once, whichever it is; ``load`` brings its networks' weights into memory; ``packing`` writes it as
one file. What a fold's folder tells of its training is read here too, because models are handed on with it. The room
knows plans and how masks are postprocessed; it neither trains nor predicts.
"""
