"""The bodies of answers as OpenAI writes them, field for field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_openai_batch.testing.replies import sound
from airflow_openai_batch.testing.replies.drawing import encode_picture
from airflow_openai_batch.testing.replies.wording import score_sentiment

JSON = dict[str, Any]


@dataclass(slots=True)
class ReplyDraft:
    """An answer before it has its shape."""

    id: str
    created: int
    model: str
    input_tokens: int
    body: JSON
    texts: list[str] = field(default_factory=list)
    """One per choice."""
    output_tokens: int = 0
    finish_reason: str = "stop"
    refusal: str | None = None
    tool_call: JSON | None = None


def chat_completion(draft: ReplyDraft) -> JSON:
    return {
        "id": f"chatcmpl-{draft.id}",
        "object": "chat.completion",
        "created": draft.created,
        "model": draft.model,
        "choices": [_chat_choice(draft, index, text) for index, text in enumerate(draft.texts)],
        "usage": {
            "prompt_tokens": draft.input_tokens,
            "completion_tokens": draft.output_tokens,
            "total_tokens": draft.input_tokens + draft.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": min(draft.output_tokens, sound.TOKENS) if _is_spoken(draft) else 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": _tier_of(draft.body),
        "system_fingerprint": "fp_emulator",
    }


def _is_spoken(draft: ReplyDraft) -> bool:
    return "audio" in (draft.body.get("modalities") or ())


def _tier_of(body: JSON) -> str:
    """The one that was asked for: here it always has room."""
    asked = body.get("service_tier")
    return asked if asked in ("flex", "priority", "scale") else "default"


def _chat_choice(draft: ReplyDraft, index: int, text: str) -> JSON:
    message: JSON = {"role": "assistant", "content": text, "refusal": draft.refusal, "annotations": []}
    reason = draft.finish_reason
    if draft.refusal is not None:
        message["content"] = None
    elif _is_spoken(draft):
        message |= {"content": None, "audio": sound.speak(text, f"{draft.id}{index}", draft.created)}
    elif draft.tool_call is not None:
        message |= {"content": None, "tool_calls": [draft.tool_call]}
        forced = isinstance(draft.body.get("tool_choice"), dict)
        reason = "stop" if forced else "tool_calls"
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def completion(draft: ReplyDraft) -> JSON:
    return {
        "id": f"cmpl-{draft.id}",
        "object": "text_completion",
        "created": draft.created,
        "model": draft.model,
        "choices": [
            {"text": text, "index": index, "logprobs": None, "finish_reason": draft.finish_reason}
            for index, text in enumerate(draft.texts)
        ],
        "usage": {
            "prompt_tokens": draft.input_tokens,
            "completion_tokens": draft.output_tokens,
            "total_tokens": draft.input_tokens + draft.output_tokens,
        },
    }


def response(draft: ReplyDraft) -> JSON:
    body = draft.body
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(draft.finish_reason)
    content: JSON = {"type": "output_text", "text": draft.texts[0], "annotations": [], "logprobs": []}
    if draft.refusal is not None:
        content = {"type": "refusal", "refusal": draft.refusal}
    return {
        "id": f"resp_{draft.id}",
        "object": "response",
        "created_at": draft.created,
        "status": "incomplete" if reason else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": draft.model,
        "output": [
            *_draw_for(draft),
            {
                "id": f"msg_{draft.id}",
                "type": "message",
                "status": "incomplete" if reason else "completed",
                "role": "assistant",
                "content": [content],
            },
        ],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "service_tier": _tier_of(draft.body),
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": draft.input_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": draft.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": draft.input_tokens + draft.output_tokens,
        },
        "user": body.get("user"),
        "metadata": body.get("metadata") or {},
    }


def _draw_for(draft: ReplyDraft) -> list[JSON]:
    """The calls of the tool that draws, one for each that the request has."""
    tools = [tool for tool in draft.body.get("tools") or () if tool.get("type") == "image_generation"]
    return [
        {
            "id": f"ig_{draft.id}{number}",
            "type": "image_generation_call",
            "status": "completed",
            "output_format": "png",
            "revised_prompt": draft.texts[0],
            "size": tool.get("size") or "1024x1024",
            "result": encode_picture(tool.get("size"), bytes.fromhex(draft.id) + bytes([number]), "png"),
        }
        for number, tool in enumerate(tools)
    ]


def embedding_list(draft: ReplyDraft, vectors: list[Any]) -> JSON:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)
        ],
        "model": draft.model,
        "usage": {"prompt_tokens": draft.input_tokens, "total_tokens": draft.input_tokens},
    }


_CATEGORIES = {
    "harassment": ("stupid", "idiot", "hate you"),
    "harassment/threatening": (),
    "hate": ("hate",),
    "hate/threatening": (),
    "illicit": (),
    "illicit/violent": (),
    "self-harm": ("suicide",),
    "self-harm/intent": (),
    "self-harm/instructions": (),
    "sexual": (),
    "sexual/minors": (),
    "violence": ("kill", "murder", "shoot"),
    "violence/graphic": (),
}  # fmt: skip


def moderation(draft: ReplyDraft, texts: list[str]) -> JSON:
    return {"id": f"modr-{draft.id}", "model": draft.model, "results": [_moderate(text) for text in texts]}


def _moderate(text: str) -> JSON:
    folded = text[:4_000].lower()
    flags = {name: any(word in folded for word in words) for name, words in _CATEGORIES.items()}
    base = 0.02 if score_sentiment(text) < 0 else 0.001
    return {
        "flagged": any(flags.values()),
        "categories": flags,
        "category_scores": {name: 0.91 if flag else base for name, flag in flags.items()},
        "category_applied_input_types": {name: ["text"] if flag else [] for name, flag in flags.items()},
    }


def usage_of(body: JSON) -> tuple[int, int]:
    """Input and output tokens of an answer, whichever endpoint gave it; 0 where it says nothing of the kind."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    found = (
        usage.get("input_tokens", usage.get("prompt_tokens", 0)),
        usage.get("output_tokens", usage.get("completion_tokens", 0)),
    )
    tokens_in, tokens_out = (count if isinstance(count, int) else 0 for count in found)
    return tokens_in, tokens_out
