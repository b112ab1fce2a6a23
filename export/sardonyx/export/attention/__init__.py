"""Lowerings of `attend`: one file for each way a runtime can be asked for attention."""
