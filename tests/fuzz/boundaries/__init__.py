"""What strangers may hand to the program, a module each: `examples`, a strategy, and `attempt(example, folder)`.

`attempt` gives an example to the real entry points and writes only into `folder`. It returns, or raises XbcompileError; whatever
else it raises, and time or memory beyond the limits of `tests.fuzz.harness`, is a finding.
"""
