"""Checks of KeyVerify."""
