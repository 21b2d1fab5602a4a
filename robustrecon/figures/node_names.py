"""Nodes of a network by layer and channel; without torch, so that a wrong name is told at once."""

from __future__ import annotations

from ..types import InputError


def parse_node(text: str) -> tuple[str, int]:
    """The layer and the channel in LAYER:CHANNEL.

    Raises:
        InputError: something else.
    """
    layer, _, channel = text.rpartition(":")
    if not layer or not channel.isdecimal():
        raise InputError(f"node: got {text!r}, must be LAYER:CHANNEL, such as layer4.2:17")
    return layer, int(channel)
