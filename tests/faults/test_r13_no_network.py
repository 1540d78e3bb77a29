"""R13: the whole suite runs with sockets to other machines refused; this shows that the refusal bites."""

from __future__ import annotations

import socket
from typing import Any

import pytest


@pytest.mark.parametrize("place", [("192.0.2.1", 80), ("huggingface.co", 443)])
def test_a_socket_to_another_machine_is_refused(place: tuple[str, int], figures: dict[str, Any]) -> None:
    with socket.socket() as asked, pytest.raises(OSError, match="without a network"):
        asked.connect(place)
    figures["refused"] = f"{place[0]}:{place[1]}"
