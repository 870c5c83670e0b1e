"""Build the parts of a release: workflows, pictures, locales and the archive."""
