"""Language models that learn from the archive and propose better mixtures.

Only this folder imports transformers, peft and trl, and only where a model is in fact used.
"""
