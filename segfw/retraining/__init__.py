"""A model trained on with signed labels, and whether that made it better than training on without them would have."""
