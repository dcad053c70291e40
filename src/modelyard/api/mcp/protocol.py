"""The MCP server of an application: what it answers to the methods of the protocol.

This module imports the SDK, which takes half a second. It is imported with the first request to /mcp.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPError
from starlette.requests import Request

from modelyard.api.errors.rendering import InternalError, error_object
from modelyard.api.mcp.calls import Calls
from modelyard.api.mcp.changes import ModelChanges
from modelyard.api.mcp.chat_tool import CHAT_TOOL
from modelyard.api.mcp.model_tools import MODEL_TOOLS
from modelyard.api.mcp.pooling_tools import POOLING_TOOLS
from modelyard.api.mcp.progress import CallProgress
from modelyard.api.mcp.resources import TEMPLATE, content_of, model_at, name_in, page_of, summary_of, uri_of
from modelyard.api.mcp.sessions import MAX_SUBSCRIPTIONS, Session, Sessions
from modelyard.api.mcp.tools import Tool, ToolAnswer, ToolCall, UnknownArgument
from modelyard.api.request_context import RequestContext
from modelyard.api.services import Services
from modelyard.errors import InvalidRequest, ModelyardError, OutOfMemory
from modelyard.version import __version__
from modelyard.yard.requests.context import current_caller
from modelyard.yard.stats.status import ModelStatus
from modelyard.yard.stats.status_broadcaster import StatusChange

logger = logging.getLogger(__name__)

TOOLS: Final = (CHAT_TOOL, *POOLING_TOOLS, *MODEL_TOOLS)
"""All tools, in the order in which clients list them."""

_BY_NAME: Final = {tool.name: tool for tool in TOOLS}

INSTRUCTIONS: Final = (
    "Language models on the machine of this server. 'list_models' shows them, with what each can do; 'chat' asks one; "
    "'embed' and 'rerank' compute vectors and rankings. A model that is not loaded is loaded by its first request, "
    "which takes from a second to minutes."
)

SESSION_HEADER: Final = "mcp-session-id"

IGNORED_KEY: Final = "modelyard/ignored"
"""The field of a result's ``_meta`` that lists the parts of the arguments that had no effect."""

_Context = ServerRequestContext[Any, Any]


class McpServer(Server[Any]):
    """The server: one for all sessions of an application.

    Args:
        services: of the application.
        sessions: the sessions of its clients.
        changes: the changes of the models.

    Attributes:
        bus: takes what the streams of events tell.
        listening: the streams of events, of clients without sessions.
        listener_count: how many of them are open.
    """

    def __init__(self, services: Services, sessions: Sessions, changes: ModelChanges) -> None:
        self._services, self._sessions, self._changes = services, sessions, changes
        self.bus = InMemorySubscriptionBus()
        self.listening = ListenHandler(self.bus)
        self.listener_count = 0
        super().__init__(
            "modelyard",
            version=__version__,
            title="Modelyard",
            instructions=INSTRUCTIONS,
            # No schema names HTTP headers; without this the SDK would list all tools before each call.
            get_tool_input_schema=lambda _: None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._subscribe,
            on_unsubscribe_resource=self._unsubscribe,
            on_subscriptions_listen=self._listen,
        )
        self.add_notification_handler("notifications/initialized", types.NotificationParams, self._on_initialized)

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return what the server says of itself: its resources change."""
        options = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    # Tools

    async def _list_tools(self, _: _Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        caller = current_caller()
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS if caller.may(tool.scope)])

    async def _call_tool(self, context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        tool = _BY_NAME.get(params.name)
        if tool is None or not current_caller().may(tool.scope):
            raise MCPError(
                types.INVALID_PARAMS, f"Unknown tool: '{params.name[:100]}'. tools/list has those there are."
            )
        arguments = params.arguments or {}
        try:
            tool.check_names(arguments)
        except UnknownArgument as unknown:
            raise MCPError(types.INVALID_PARAMS, str(unknown)) from None
        request = _request_of(context)
        progress = CallProgress(context.session.report_progress if _wants_progress(context) else None)
        call = ToolCall(self._services, arguments, progress, request)
        with Calls.of(request.scope).running():
            try:
                with self._loads_reported(call):
                    async with progress.reported():
                        return _result(await tool.run(call))
            except ModelyardError as error:
                return _failed(error, request)
            except MemoryError:
                return _failed(OutOfMemory(), request)
            except Exception as unexpected:  # noqa: BLE001 (the SDK would send its text to the client)
                return _failed(_internal_error(unexpected, request), request)

    def _loads_reported(self, call: ToolCall) -> AbstractContextManager[None]:
        """Report the progress of the load of the call's model within the context, if the client wants reports."""
        name = call.arguments.get("model", call.arguments.get("model_id"))
        if not call.progress.is_wanted or not isinstance(name, str | None):
            return nullcontext()
        try:
            model = self._services.yard.configured(name).id
        except ModelyardError:
            # The tool itself refuses the name, or needs none.
            return nullcontext()

        def on_change(change: StatusChange) -> None:
            if change.model == model and change.progress is not None:
                # Files are prepared before they are loaded; half of the progress is each.
                done = change.progress / 2 + (0 if change.step else 0.5)
                call.progress.loading(done, f"{model}: {change.step or 'loading'}")

        return self._changes.heard(on_change)

    # Resources

    async def _list_resources(
        self, _: _Context, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        if not current_caller().may("read"):
            return types.ListResourcesResult(resources=[])
        try:
            models, following = page_of(self._services.yard.models(), params.cursor if params else None)
        except InvalidRequest as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        resources = [
            types.Resource(
                uri=uri_of(model.id), name=model.id, description=summary_of(model), mime_type="application/json"
            )
            for model in models
        ]
        return types.ListResourcesResult(resources=resources, next_cursor=following)

    async def _list_templates(
        self, _: _Context, __: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        model = types.ResourceTemplate(
            uri_template=TEMPLATE,
            name="model",
            title="A model",
            description="The status of a model, by id or alias.",
            mime_type="application/json",
        )
        return types.ListResourceTemplatesResult(resource_templates=[model] if current_caller().may("read") else [])

    async def _read_resource(self, _: _Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        text = content_of(self._services, self._model(params.uri))
        content = types.TextResourceContents(uri=params.uri, mime_type="application/json", text=text)
        return types.ReadResourceResult(contents=[content])

    async def _subscribe(self, context: _Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        model = self._model(params.uri)
        session = self._session_of(context)
        if len(session.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise MCPError(types.INVALID_PARAMS, f"A session has at most {MAX_SUBSCRIPTIONS} subscriptions.")
        session.subscriptions.add(uri_of(model.id))
        session.peer = context.session
        self._changes.follow()
        return types.EmptyResult()

    async def _unsubscribe(self, context: _Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self._session_of(context).subscriptions.discard(self._announced(params.uri))
        return types.EmptyResult()

    async def _listen(
        self, context: _Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Stream events to a client without a session: of the models that it may see."""
        wanted = params.notifications
        uris = wanted.resource_subscriptions or []
        if len(uris) > MAX_SUBSCRIPTIONS:
            raise MCPError(types.INVALID_PARAMS, f"A stream has at most {MAX_SUBSCRIPTIONS} subscriptions.")
        may_read = current_caller().may("read")
        seen = [self._announced(uri) for uri in uris if may_read and self._is_seen(uri)]
        honoured = wanted.model_copy(
            update={
                "resource_subscriptions": seen or None,
                "resources_list_changed": wanted.resources_list_changed if may_read else None,
                "tools_list_changed": None,
                "prompts_list_changed": None,
            }
        )
        self._changes.follow()
        self.listener_count += 1
        try:
            with Calls.of(_request_of(context).scope).running():
                return await self.listening(context, params.model_copy(update={"notifications": honoured}))
        finally:
            self.listener_count -= 1

    def _is_seen(self, uri: str) -> bool:
        name = name_in(uri)
        return name is not None and self._services.yard.directory.is_known(name)

    def _announced(self, uri: str) -> str:
        """Return the address under which changes of the model at ``uri`` are announced: with its id, not an alias."""
        try:
            return uri_of(model_at(self._services.yard, uri).id)
        except ModelyardError:
            # There is no such model at the moment.
            return uri

    def _model(self, uri: str) -> ModelStatus:
        """Return the model at ``uri``.

        Raises:
            MCPError: there is none, or the caller may not read it.
        """
        if not current_caller().may("read"):
            raise MCPError(types.INVALID_PARAMS, "This API key may not read models: it needs the scope 'read'.")
        try:
            return model_at(self._services.yard, uri)
        except ModelyardError as error:
            # "Resource not found" of the specification.
            raise MCPError(-32002, error.wire_message, {"uri": uri[:200]}) from None

    def _session_of(self, context: _Context) -> Session:
        session = self._sessions.find(_request_of(context).headers.get(SESSION_HEADER), current_caller().owner)
        if session is None:
            raise MCPError(types.INVALID_REQUEST, "The session has ended.")
        return session

    async def _on_initialized(self, context: _Context, _: types.NotificationParams) -> None:
        """Note how the client of a session is notified."""
        caller = current_caller()
        session = self._sessions.find(_request_of(context).headers.get(SESSION_HEADER), caller.owner)
        if session is not None and caller.may("read"):
            session.peer = context.session
            self._changes.follow()


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.schema,
        annotations=types.ToolAnnotations(
            read_only_hint=tool.is_read_only,
            destructive_hint=tool.is_destructive,
            idempotent_hint=tool.is_idempotent,
            open_world_hint=tool.is_open,
        ),
    )


def _request_of(context: _Context) -> Request:
    """Return the HTTP request that has brought a message."""
    assert isinstance(context.request, Request)
    return context.request


def _wants_progress(context: _Context) -> bool:
    return context.meta is not None and context.meta.get("progress_token") is not None


def _result(answer: ToolAnswer) -> types.CallToolResult:
    content: list[types.ContentBlock] = [types.TextContent(text=answer.text)]
    meta = {IGNORED_KEY: list(answer.ignored)} if answer.ignored else None
    return types.CallToolResult(content=content, structured_content=answer.structured, _meta=meta)


def _failed(error: ModelyardError, request: Request) -> types.CallToolResult:
    visible = current_caller().visible_error(error)
    context = RequestContext.of(request.scope)
    context.error_code, context.error_param = visible.code, visible.param
    content: list[types.ContentBlock] = [types.TextContent(text=visible.wire_message)]
    structured = {"error": error_object(visible)}
    return types.CallToolResult(content=content, structured_content=structured, is_error=True)


def _internal_error(error: Exception, request: Request) -> InternalError:
    request_id = RequestContext.of(request.scope).request_id
    logger.error("Internal error in request %s", request_id, exc_info=error)
    return InternalError(request_id)
