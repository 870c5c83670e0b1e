"""Time and memory of a sampling step, side by side with other networks.

The command is `python3 dev.py python -m benchmarks`. With `--write`, it writes the sections to
benchmarks/RESULTS.md. The modules:

- contenders: networks of Stable Diffusion 2.1's size, ours and others', each with a callable for one step.
- timing: rounds that alternate with the baseline, and working memory.
- operations, profile, layers: operations counted, time by kind of work, single layers written in two ways.
- loading, fresh_host: files and start-up, each measured in a process of its own.
- interpolation, cascade, training, training_parts: the mini models.
- memory: what fits on a card, counted on tensors without storage.
- report: the tables, the plot and the page.
"""
