"""Metrics for any model and any videos: I3D features, distances, bootstrap intervals, PSNR."""
