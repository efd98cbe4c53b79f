"""Who calls: tokens of several kinds, client certificates, and on whose behalf."""
