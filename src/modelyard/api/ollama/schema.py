"""What Ollama's clients send.

Source: https://github.com/ollama/ollama/blob/main/docs/api.md and api/types.go.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modelyard.api.openai.schema import LONGEST_NAME, MOST_TOKENS, MOST_TOP_LOGPROBS, Stop
from modelyard.api.openai.tools import MOST_TOOLS, ToolDefinition, schema_format
from modelyard.api.urgency import KeepAlive
from modelyard.config.schema import (
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
)
from modelyard.engine.messages import Chat, Infill, Prompt, Sampling, Text
from modelyard.errors import InvalidRequest, UnsupportedOperation
from modelyard.yard.yard import Request


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", hide_input_in_errors=True, protected_namespaces=())


class Options(_Part):
    """Ollama's ``options``. Those that say how a model is loaded are the configuration's, and count for nothing."""

    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    min_p: MinP | None = None
    repeat_penalty: RepetitionPenalty | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    seed: Seed | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS)] | None = None
    stop: Stop | None = None


class Call(_Part):
    """A function that the model called; its arguments are an object."""

    name: str
    arguments: dict[str, Any] = {}


class MadeCall(_Part):
    """Ollama's ``tool_calls[]``."""

    function: Call


class Message(_Part):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[MadeCall] | None = None
    tool_name: str | None = None

    def for_template(self) -> dict[str, Any]:
        """The turn as chat templates read it."""
        if self.images:
            raise UnsupportedOperation("'images' are not supported here.", "messages")
        turn: dict[str, Any] = {"role": self.role, "content": self.content or ""}
        if self.thinking:
            turn["reasoning_content"] = self.thinking
        if self.tool_name:
            turn["name"] = self.tool_name
        if self.tool_calls:
            turn["tool_calls"] = [
                {
                    "id": f"call_{index}",
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": json.dumps(call.function.arguments)},
                }
                for index, call in enumerate(self.tool_calls)
            ]
        return turn


class _Generated(_Part):
    """What chats and completions have in common."""

    model: str | None = Field(default=None, max_length=LONGEST_NAME)
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    keep_alive: KeepAlive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None

    @property
    def streams(self) -> bool:
        """Ollama streams unless it is told not to."""
        return self.stream is not False

    def template_options(self) -> dict[str, Any]:
        """What the chat template is told of reasoning."""
        if self.think is None:
            return {}
        effort = {"reasoning_effort": self.think} if isinstance(self.think, str) else {}
        return {"enable_thinking": bool(self.think), **effort}

    def to_request(self, prompt: Prompt) -> Request:
        """What the yard is asked."""
        options = self.options or Options()
        most = options.num_predict
        return Request(
            prompt=prompt,
            model=self.model,
            sampling=Sampling(
                temperature=options.temperature,
                top_k=options.top_k,
                top_p=options.top_p,
                min_p=options.min_p,
                repetition_penalty=options.repeat_penalty,
                presence_penalty=options.presence_penalty,
                frequency_penalty=options.frequency_penalty,
                seed=options.seed,
            ),
            # -1 and -2: as many as the context holds.
            max_tokens=most if most is not None and most > 0 else None,
            stop=tuple(options.stop or ()),
            response_format=self._format(),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def _format(self) -> dict[str, Any] | None:
        if not self.format:
            return None
        return {"type": "json_object"} if self.format == "json" else schema_format(dict(self.format))


class ChatRequest(_Generated):
    """The body of ``POST /api/chat``. Without messages it only loads the model, or unloads it."""

    messages: list[Message] | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=MOST_TOOLS)] | None = None

    def chat(self) -> Chat:
        """The conversation."""
        tools = tuple(tool.model_dump(exclude_none=True) for tool in self.tools or [])
        messages = tuple(message.for_template() for message in self.messages or [])
        return Chat(messages, tools, options=self.template_options())


class GenerateRequest(_Generated):
    """The body of ``POST /api/generate``. Without a prompt it only loads the model, or unloads it."""

    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    raw: bool = False
    images: list[str] | None = None

    def prompted(self, *, can_chat: bool) -> Prompt:
        """The prompt: a single turn, or plain text where it is raw or the model does not chat.

        Raises:
            InvalidRequest: a part of it is not supported.
        """
        if self.template:
            raise InvalidRequest("'template' is not supported: templates are configured.", "template")
        if self.images:
            raise UnsupportedOperation("'images' are supported at /v1/chat/completions.", "images")
        if self.suffix:
            return Infill(self.prompt, self.suffix)
        if self.raw or not can_chat:
            return Text(self.prompt)
        system = ({"role": "system", "content": self.system},) if self.system else ()
        return Chat((*system, {"role": "user", "content": self.prompt}), options=self.template_options())


class NamedModel(_Part):
    """The body of ``POST /api/show``."""

    model: str = Field(default="", max_length=LONGEST_NAME)
    name: str = Field(default="", max_length=LONGEST_NAME)
