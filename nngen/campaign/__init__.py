"""The loop that joins the rooms: sample, assemble, check, train, store."""
