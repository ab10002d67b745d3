"""LangChain both ways: its apps feed the bus, its handlers hear the bus (``adapter``)."""
