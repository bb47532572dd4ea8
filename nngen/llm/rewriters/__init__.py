"""Rewriters: baselines, local transformers models and OpenAI-compatible servers behind one protocol."""
