"""Assembly of mixtures: a plan and its families become one self-contained file."""
