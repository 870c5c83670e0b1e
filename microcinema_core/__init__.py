"""MicroCinema: text-to-video by divide and conquer (CVPR 2024), as plain PyTorch. See docs/paper.md."""

from .moved import MOVED, stop_at_a_moved_command

stop_at_a_moved_command(MOVED)
