"""Campaigns: candidates from a source are assembled, checked, trained and stored; resumable at any instant.

Import from the modules themselves: the options of commands need the budget and the specification alone.
"""
