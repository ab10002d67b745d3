"""Other libraries on the bus: sources that start runs, and adapters for other frameworks' handlers. Each imports its library
itself, and knows none of the outputs.
"""
