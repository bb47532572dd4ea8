"""Dashboard: a read-only web page on an archive, for a browser on this machine."""
