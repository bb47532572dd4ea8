"""Translation of the archive's values from and to the columns of their rows."""
