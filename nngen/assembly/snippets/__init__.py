"""Code that stands in generated files as it stands here: imported by tests, read as text by the renderer."""
