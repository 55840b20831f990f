"""What features of masks say of patients: models of an outcome, judged on patients that they were not fitted on.

Nothing here needs torch.
"""
