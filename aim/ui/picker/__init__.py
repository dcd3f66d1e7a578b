"""Picking a class."""
