"""Code that generated files hold as it is here: imported by tests, read as text by the renderer."""
