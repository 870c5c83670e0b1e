"""Training on one card: pictures are rendered, encoded and captioned there, from an archive of the mini world."""
