"""`python3 dev.py python -m benchmarks`: what a step costs, side by side with others, into docs/performance.md.

contenders: networks of Stable Diffusion 2.1's size, ours and others', each as a call that is one step.
operations: what a step computes, counted. timing: rounds in turns with the floor, and memory. profile: where a step's
time goes. layers: single ones, written in two ways. loading: start-up and files, by fresh_host. interpolation: memory
as a video grows. cascade: the mini model's stages. training: a step and its data. memory: what fits on a card, counted.
report: the page's sections and its plots.
"""
