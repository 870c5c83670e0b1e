"""What a release is made of: workflows, pictures, locales and the archive."""
