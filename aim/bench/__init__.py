"""Speed, measured: the machine, what a step must move, batches through the engine, models against
each other, and what grows with size.
"""
