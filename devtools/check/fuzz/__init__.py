"""A campaign of malformed files and graphs: each has to be refused with a sentence, or to give a finite result.

`python3 dev.py python -m devtools.check.fuzz --minutes 60` runs it. hypothesis makes each case and shrinks those that
fail. A case runs in a child process, so that a crash or a hang is seen and belongs to one case.

A case is a JSON object: the target, what it starts from, and the faults. A fault with `"bad": true` must be refused.
"""
