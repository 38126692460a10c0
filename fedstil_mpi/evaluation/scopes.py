"""Scopes: where queries are searched, as `evaluation.gallery` names it."""

from collections.abc import Sequence


def headline(scopes: Sequence[str]) -> str:
    """The scope whose numbers are told where there is room for one: client, or else the first."""
    return "client" if "client" in scopes else scopes[0]
