"""Quality of trained classifiers beyond accuracy, and what the best is compared with: families alone, baselines."""
