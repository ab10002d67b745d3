"""What a search finds in a text, by the store's index: for all that show where words stand, in Python and in a browser."""

FOUND = [
    ("subscri*", "Subscribers subscribe.", ["Subscribers", "subscribe"]),
    ("llm_new_token", "Connect `llm_new_token` to new ears", ["llm_new_token"]),
    ('"six times"', "times six, six-times", ["six-times"]),
    ("cafe", "Ein Café, ein cafe\u0301 und eine Cafeteria", ["Café", "cafe\u0301"]),
    ("Ärger", "aͤrger arger ärger", ["aͤrger", "arger", "ärger"]),
    ("日本", "日本 日本語", ["日本"]),
    ("한국", "한국 한국어", ["한국"]),
    ("a.b (c) [d", "a.b (c) [d] [e]", ["a.b", "c", "d"]),
]
"""What is searched for, a text that has it, and the pieces of the text that are it."""
