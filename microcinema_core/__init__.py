"""MicroCinema: text-to-video by divide and conquer (CVPR 2024), as plain PyTorch. See docs/paper.md."""
