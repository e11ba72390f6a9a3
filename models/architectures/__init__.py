"""One paper, one file: ``FAMILY`` describes the architecture, ``build(**settings)`` makes it."""
