"""Public fakes and test classes for code that uses nngen: ``fakes``, ``archive_contract`` and ``tiny_model``.

``archive_contract`` needs pytest; nothing else of nngen does.
"""
