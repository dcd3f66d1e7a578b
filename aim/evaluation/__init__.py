"""Judging a trained model by its samples."""
