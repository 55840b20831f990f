"""Whether signed labels make a model better than as many steps without them, by a simulated expert on real cases."""
