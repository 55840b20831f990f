"""To and from nnU-Net v2: its trained models as ours, ours as its. Facts about its files are from nnU-Net 2.8.1."""
