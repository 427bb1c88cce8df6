"""What the emulator says aloud: a short tone, and the words beside it."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

JSON = dict[str, Any]

_RATE = 8_000
_SAMPLES = 800
_KEPT_S = 3_600
TOKENS = 40


def speak(text: str, answer_id: str, now: int) -> JSON:
    """``audio`` of a chat message: always a WAV, whatever was asked for."""
    return {
        "id": f"audio_{answer_id}",
        "data": base64.b64encode(_make_wav(answer_id.encode())).decode(),
        "expires_at": now + _KEPT_S,
        "transcript": text,
    }


def _make_wav(seed: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(_RATE)
        sound.writeframes((seed * _SAMPLES)[:_SAMPLES])
    return file.getvalue()
