"""Proposals: prompting a rewriter, parsing its reply, refusing duplicates, keeping a log."""
