"""The web interface of MONAI Label over a folder under review, so that its plug-ins for 3D Slicer and OHIF work."""
