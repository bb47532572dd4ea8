"""The space of quartets: ranks, samplers, coverage of what was sampled."""
