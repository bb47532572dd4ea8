"""Check rules, one module each: ``static`` reads a source, ``dynamic`` runs it. A new file there is a new rule."""
