"""Which masks a person should look at first, how long that takes, and what may be wrong in those nobody looked at."""
