"""What a response body says: text, refusal, vectors, tokens, for each endpoint of the Batch API.

Nothing here raises for a body of an unexpected shape: the answer then has the defect
``unreadable_answer``, so that one odd body cannot hold up the 49,999 others of its shard.
"""

from __future__ import annotations

from airflow_openai_batch.openai_api.answer_choices import read_chat, read_completion
from airflow_openai_batch.openai_api.answer_items import read_response
from airflow_openai_batch.openai_api.answer_media import read_images
from airflow_openai_batch.openai_api.answer_parts import UNREADABLE, ResponseContent, read_usage, string
from airflow_openai_batch.openai_api.answer_vectors import read_embeddings, read_moderation
from airflow_openai_batch.openai_api.answer_videos import read_video
from airflow_openai_batch.openai_api.lenient_json import UnreadableJSONError
from airflow_openai_batch.openai_api.response_bodies import OddShapeError, OtherBody, ShapeReader

_other = ShapeReader(OtherBody).read


def read_answer(
    endpoint: str, body: bytes, *, inputs: int | None = None, dimensions: int | None = None
) -> ResponseContent:
    """What ``body``, the JSON of a 2xx response, says. Never raises for what the server sent.

    :param inputs: how many were sent, of embeddings and moderations; None where that is not known.
    :param dimensions: of the embeddings that were asked for, if any.
    """
    code = UNREADABLE
    try:
        return _read(endpoint, body, inputs, dimensions)
    except OddShapeError as error:
        reason, code = str(error), error.code
    except UnreadableJSONError as error:
        reason = str(error)
    except Exception as error:
        # What a stranger's body can trip over here has no bound, and must not stop the landing.
        reason = type(error).__name__
    answer = read_costs(body)
    answer.defect = code
    answer.defect_message = f"The response body is not what {endpoint} returns: {reason}."
    return answer


def read_costs(body: bytes) -> ResponseContent:
    """Model and tokens alone, which an answer is billed by whatever else it is. Never raises."""
    try:
        root = _other(body)
    except Exception:
        return ResponseContent(has_text=False)
    return ResponseContent(
        model=string(root.model),
        usage=read_usage(root.usage),
        service_tier=string(root.service_tier),
        has_text=False,
    )


def _read(endpoint: str, body: bytes, inputs: int | None, dimensions: int | None) -> ResponseContent:
    match endpoint:
        case "/v1/chat/completions":
            return read_chat(body)
        case "/v1/responses":
            return read_response(body)
        case "/v1/embeddings":
            return read_embeddings(body, inputs, dimensions)
        case "/v1/completions":
            return read_completion(body)
        case "/v1/moderations":
            return read_moderation(body, inputs)
        case "/v1/images/generations" | "/v1/images/edits":
            return read_images(body, inputs)
        case "/v1/videos":
            return read_video(body)
    _other(body)
    return read_costs(body)
