"""How far a mask may be trusted: predicted quality, bounds, verdicts, suspected regions, plausible masks, odd images."""
