"""How far a mask may be trusted: predicted quality, bounds, verdicts, regions, plausible masks, odd images."""
