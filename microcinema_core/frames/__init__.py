"""Finished frames: the centre frame, clips joined from segments, and their colours."""
