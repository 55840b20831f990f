"""The gate through which masks leave a review: signed and unchanged ones alone, or others stamped and logged."""
