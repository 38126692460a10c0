"""The two directions of an edge link, under the names that ledgers and reports have for them."""

DOWN, UP = "S2C", "C2S"
"""Server to client; client to server."""
