"""Checks of RealmAdmin."""
