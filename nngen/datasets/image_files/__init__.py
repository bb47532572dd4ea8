"""Data sets of image files: in folders or listed in tables, of any format, depth and size, decoded on all cores."""
