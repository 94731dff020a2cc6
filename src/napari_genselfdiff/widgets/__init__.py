"""Dock widgets: show the session, forward clicks; thin."""
