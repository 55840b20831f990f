"""Images changed on purpose, as other scanners and other hands would: noise, blur, missing slices, another order of axes."""
