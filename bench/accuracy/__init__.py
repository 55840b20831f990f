"""Dice after equal core-minutes, of one way to train or another: trainings that can go on, results that are kept."""
