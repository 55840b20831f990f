"""Images changed on purpose, as other scanners would: noise, blur, missing slices, other axes."""
