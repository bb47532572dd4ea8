"""Fine-tuning of language models (LoRA) on examples drawn from the archive."""
