"""Errors of a model: its queue, its load, its engine, and its use in process."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modelyard.errors.base import ModelyardError


class NoFreeSlot(ModelyardError):
    """The model computes as many answers as it can at the same time, and the client asked to be told."""

    code = "no_free_slot"
    status = 503
    retry_after_s = 1

    def __init__(self, model: str, running: int) -> None:
        super().__init__(model, running)
        self.model, self.running = model, running

    def __str__(self) -> str:
        return f"'{self.model}' computes {self.running} answers already, as many as it can. Try again soon."


class QueueFull(ModelyardError):
    """The queue of the model is full."""

    code = "queue_full"
    status = 429
    type = "rate_limit_error"
    retry_after_s = 1

    def __init__(self, model: str, waiting: int, *, of_key: bool = False) -> None:
        super().__init__(model, waiting)
        self.model, self.waiting, self.of_key = model, waiting, of_key

    def __str__(self) -> str:
        if self.of_key:
            return (
                f"{self.waiting} requests of this API key for '{self.model}' are running or waiting; the other places "
                "are left for other keys. Try again soon."
            )
        return f"{self.waiting} requests for '{self.model}' are running or waiting, which is its limit. Try again soon."


class ModelLoading(ModelyardError):
    """The model is not loaded, or about to be unloaded, and the caller waits no longer, or not at all.

    Args:
        model: its id.
        retry_after_s: seconds that its load takes, as far as is known.
        waited_s: how long the request has waited.
        is_loaded: whether it is loaded, but takes no requests before it was unloaded: an unload is queued before them,
            or it makes room for another model.
    """

    code = "model_loading"
    status = 503

    def __init__(self, model: str, retry_after_s: int, waited_s: float = 0.0, *, is_loaded: bool = False) -> None:
        super().__init__(model, retry_after_s, waited_s)
        self.model, self.retry_after_s, self.waited_s, self.is_loaded = model, retry_after_s, waited_s, is_loaded

    def __str__(self) -> str:
        if self.is_loaded:
            waited = f" This one has waited for {self.waited_s:.0f} s." if self.waited_s else ""
            return (
                f"The model '{self.model}' takes no further requests until it was unloaded and loaded again.{waited} "
                f"Try again in {self.retry_after_s} s."
            )
        waited = f" after {self.waited_s:.0f} s of waiting" if self.waited_s else ""
        return f"The model '{self.model}' is not loaded{waited}. Try again in {self.retry_after_s} s."


class ModelBusy(ModelyardError):
    """Running requests did not end in time for an unload. The model stays loaded."""

    code = "model_busy"
    status = 503

    def __init__(self, model: str, waited_s: float) -> None:
        super().__init__(model, waited_s)
        self.model, self.waited_s = model, waited_s

    def __str__(self) -> str:
        return (
            f"The model '{self.model}' still serves requests after {self.waited_s:.0f} s; it was not unloaded. "
            "Unload it with mode 'suspend' or 'force' to wait no longer."
        )


class ModelUnloaded(ModelyardError):
    """The model was unloaded by force while it computed the answer."""

    code = "model_unloaded"
    status = 503

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"The model '{self.model}' was unloaded by force. A new request loads it again."


class InsufficientMemory(ModelyardError):
    """The model does not fit the memory budget, of the host or of a device, even if all others are unloaded."""

    code = "insufficient_memory"
    status = 507

    def __init__(
        self, model: str, needed_bytes: int, budget_bytes: int, pinned: Sequence[str] = (), device: str = ""
    ) -> None:
        super().__init__(model, needed_bytes, budget_bytes, pinned, device)
        self.model, self.needed_bytes, self.budget_bytes = model, needed_bytes, budget_bytes
        self.pinned, self.device = tuple(pinned), device

    def __str__(self) -> str:
        beside = f" beside the pinned {', '.join(self.pinned)}" if self.pinned else ""
        needed, budget = f"{self.needed_bytes / 1e6:,.0f} MB", f"{self.budget_bytes / 1e6:,.0f} MB"
        if self.device:
            return (
                f"The model '{self.model}' needs {needed} of {self.device}{beside}, whose memory budget is {budget}. "
                "Put fewer of its layers there (n_gpu_layers), give it a shorter context (max_seq_len) or fewer "
                "sequences (max_seqs), or raise the device's budget (memory.devices)."
            )
        return (
            f"The model '{self.model}' needs {needed}{beside}, and the memory budget is {budget}. Give it a shorter "
            "context (max_seq_len) or fewer sequences (max_seqs), or raise the memory budget (budget)."
        )


class ModelLoadFailed(ModelyardError):
    """The model could not be loaded. The next attempt is possible after ``retry_after_s``."""

    code = "model_load_failed"
    status = 503

    def __init__(self, model: str, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(model, reason, retry_after_s)
        self.model, self.reason, self.retry_after_s = model, reason, retry_after_s

    def __str__(self) -> str:
        return f"The model '{self.model}' could not be loaded: {self.reason}"


class ModelFileChanged(ModelyardError):
    """A file of the model changed during the request, which cannot continue with other weights."""

    code = "model_file_changed"
    status = 503

    def __init__(self, model: str, file: str) -> None:
        super().__init__(model, file)
        self.model, self.file = model, file

    def __str__(self) -> str:
        return (
            f"The file {self.file} of the model '{self.model}' changed before this answer was complete. Try again: a "
            "new request uses the new file. To change a file without this error, replace it (mv) instead of "
            "overwriting it (cp)."
        )


class EngineError(ModelyardError):
    """The engine of the model failed while it computed the answer."""

    code = "engine_error"

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(model, reason)
        self.model, self.reason = model, reason

    def __str__(self) -> str:
        return f"The engine of '{self.model}' failed: {self.reason}. Other models are not affected; try again."


class PromptUnread(EngineError):
    """No process was available to render a chat template, or to tokenise a text that needs one."""

    code = "prompt_unread"
    status = 503
    retry_after_s = 10

    def __str__(self) -> str:
        return f"The prompt could not be read for '{self.model}': {self.reason}. Try again."


class HarmfulRequest(EngineError):
    """The request, or an equal one, has ended its engine twice.

    Args:
        reason: why the engine ended.
        refused_s: for how many seconds equal requests are refused.
    """

    def __init__(self, model: str, reason: str, refused_s: float) -> None:
        super().__init__(model, reason)
        self.args = (model, reason, refused_s)
        self.refused_s = refused_s

    def __str__(self) -> str:
        minutes = max(1, math.ceil(self.refused_s / 60))
        span = "minute" if minutes == 1 else f"{minutes} minutes"
        return (
            f"This request has ended the engine of '{self.model}' twice: {self.reason}. It is refused for the next "
            f"{span}; other requests are not affected. Change the request, or use another model."
        )


class Closed(ModelyardError):
    """The model was used after its close."""

    code = "closed"
    status = 503

    def __str__(self) -> str:
        return "The model was closed, and its memory is free. Build it again."


class ForkedProcess(ModelyardError):
    """A model was used in a forked child, where its threads do not exist."""

    code = "forked_process"

    def __init__(self, parent: int) -> None:
        super().__init__(parent)
        self.parent = parent

    def __str__(self) -> str:
        return (
            f"The model was built in process {self.parent}, and a fork copies no threads: it cannot answer here. "
            "Build it in this process, start processes with the method 'spawn', or serve it over HTTP."
        )


class WrongEventLoop(ModelyardError, RuntimeError):
    """A model of the Python API was called from a place where the call could not return.

    Args:
        message: where the call came from, and where it belongs.
    """

    code = "wrong_event_loop"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class MissingExtra(ModelyardError, ImportError):
    """A part of the Python API needs a package that is not installed.

    Args:
        what: the part.
        package: the package that cannot be imported.
        extra: the extra of Modelyard that installs it.
    """

    code = "missing_extra"

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(what, package, extra)
        self.what, self.package, self.extra = what, package, extra

    def __str__(self) -> str:
        return f"{self.what} needs the package '{self.package}': pip install 'modelyard[{self.extra}]'"


class AnswerInvalid(ModelyardError):
    """A structured answer follows its JSON schema, but breaks a rule that no schema expresses.

    Args:
        structure: name of the class that refused the answer.
        problem: what its validation reports.
        answer: the text of the answer.
    """

    code = "answer_invalid"

    def __init__(self, structure: str, problem: str, answer: str) -> None:
        super().__init__(structure, problem, answer)
        self.structure, self.problem, self.answer = structure, problem, answer

    def __str__(self) -> str:
        return (
            f"The answer is no valid {self.structure}: {self.problem}. Ask again, or state the rule in the request. "
            f"The answer was {self.answer!r}."
        )
