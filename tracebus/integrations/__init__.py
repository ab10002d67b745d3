"""Sources: each module here makes runs of what one library does. Nothing here is imported before it is asked for."""
