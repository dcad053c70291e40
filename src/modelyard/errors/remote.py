"""Errors of models that other servers have."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.errors.base import ModelyardError


class RemoteRefused(ModelyardError):
    """The server that has the model refuses the request, in its own words.

    Args:
        model: id of the model here.
        status: HTTP status of the server.
        message: what the server says.
        code: the server's code of the error; "": it has none.
        param: the field that the server names.
        retry_after_s: after how many seconds the server allows another request; None: it does not say.
    """

    code = "remote_refused"
    status = 400
    type = "invalid_request_error"

    def __init__(
        self,
        model: str,
        status: int,
        message: str,
        code: str = "",
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(model, status, message, code, param, retry_after_s)
        self.model, self.message, self.param, self.retry_after_s = model, message, param, retry_after_s
        # Clients act on the status and on codes such as "context_length_exceeded".
        self.status = status  # type: ignore[misc]
        if code:
            self.code = code  # type: ignore[misc]
        if status == 429:
            self.type = "rate_limit_error"  # type: ignore[misc]

    def __str__(self) -> str:
        return f"The server of '{self.model}' refuses the request: {self.message}"


class RemoteFailed(ModelyardError):
    """The server that has the model failed, or sent what is no answer."""

    code = "remote_failed"
    status = 502

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"The server of '{self.model}' has failed: {self.reason}"


class RemoteTimeout(ModelyardError):
    """The server that has the model sent nothing for too long."""

    code = "remote_timeout"
    status = 504

    def __init__(self, model: str, silent_s: float) -> None:
        super().__init__(model, silent_s)
        self.model, self.silent_s = model, silent_s

    def __str__(self) -> str:
        return (
            f"The server of '{self.model}' sent nothing for {self.silent_s:.0f} s (remote_timeout_seconds). Try again, "
            "or allow more time."
        )


class RemoteUnavailable(ModelyardError):
    """No server that has the model can be reached."""

    code = "remote_unavailable"
    status = 503

    def __init__(self, model: str, reason: str, retry_after_s: int) -> None:
        super().__init__(model, reason, retry_after_s)
        self.model, self.reason, self.retry_after_s = model, reason, retry_after_s

    def __str__(self) -> str:
        return f"No server of '{self.model}' answers: {self.reason}. Try again in {self.retry_after_s} s."


class RemoteLoop(ModelyardError):
    """The request has come through this server before: servers name each other for one model."""

    code = "remote_loop"
    status = 508
    type = "invalid_request_error"

    def __init__(self, model: str, hops: int) -> None:
        super().__init__(model, hops)
        self.model, self.hops = model, hops

    def __str__(self) -> str:
        return (
            f"The request for '{self.model}' went through {self.hops} servers and came back, or would go through too "
            "many: they name each other for it. Let one of them have the model itself, or name another in 'remote'."
        )


class NodeNotFound(ModelyardError):
    """No node of that name is connected.

    Args:
        node: the name.
        known: the names of the nodes that are connected; empty where there are none, as on one machine.
    """

    code = "node_not_found"
    status = 404
    type = "invalid_request_error"
    param = "node"

    def __init__(self, node: str, known: Sequence[str] = ()) -> None:
        super().__init__(node, known)
        self.node, self.known = node, tuple(known)

    def __str__(self) -> str:
        if not self.known:
            return f"There is no node '{self.node}': this server has none. Leave node out."
        return f"There is no node '{self.node}'. Connected: {', '.join(self.known)}."


class NotWithRemote(ModelyardError):
    """An operation on the memory of a model that another server has."""

    code = "model_is_remote"
    status = 400
    type = "invalid_request_error"

    def __init__(self, model: str, operation: str) -> None:
        super().__init__(model, operation)
        self.model, self.operation = model, operation

    def __str__(self) -> str:
        return (
            f"'{self.model}' cannot be {self.operation} here: another server has it. Ask that server, or remove the "
            "model from the configuration."
        )
