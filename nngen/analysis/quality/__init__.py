"""Quality of trained classifiers beyond their accuracy, and the trivial baselines that stand beside the best."""
