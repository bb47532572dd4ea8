"""Proposals: prompts filled from the archive, replies parsed and checked, duplicates refused, a log kept."""
