"""The chat agent: asks a model, and keeps each finished turn.

`ChatAgent` has the conversation, `OpenAICompatible` asks a server for chat completions; a callable over message dicts will do, too.
"""

from __future__ import annotations

from .agent import ChatAgent
from .answers import ModelAnswer, Reply
from .openai_compatible import OpenAICompatible
from .replies import AsyncReplyStream, ReplyStream

__all__ = ["AsyncReplyStream", "ChatAgent", "ModelAnswer", "OpenAICompatible", "Reply", "ReplyStream"]
