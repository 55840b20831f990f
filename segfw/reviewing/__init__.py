"""What people made of masks: decisions, versions, signatures, and a log that shows whether it was changed."""
