"""What carries events out of the process: each output is a subscriber in a module or a package of its own.

Outputs know the core and not each other. What may leave, and how it is masked, is in ``payload``.
"""
