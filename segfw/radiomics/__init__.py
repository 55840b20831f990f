"""Radiomic features of the structures in masks, as the Image Biomarker Standardisation Initiative defines them.

Definitions, names and reference values: Zwanenburg et al., Radiology 295 (2020), and the initiative's reference manual,
arXiv 1612.07003 (CC-BY 4.0), which the comments here call IBSI. Loads no torch.
"""
