"""`python3 dev.py python -m benchmarks`: what a step costs, side by side with others, into docs/performance.md.

contenders: networks of Stable Diffusion 2.1's size, ours and others', each as a call that is one step.
operations: what a step computes, counted. timing: rounds in turns with the floor, and memory. loading: start-up and
files. report: the page's sections and its plot.
"""
