"""Checks of KeyAdmin."""
