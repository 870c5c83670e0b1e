"""Blind comparison of two sets of videos by people, as in the paper's Figures 5 and 8."""
