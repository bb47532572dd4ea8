"""Limits of rankings: agreement between short and long trainings, and noise between seeds and on few images."""
