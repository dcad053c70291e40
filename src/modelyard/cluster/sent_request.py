"""A request that a front has sent to a node, or will send to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelyard.engine.hosts.records import RequestRecords
from modelyard.protocol.events import Publish
from modelyard.protocol.messages import Request


@dataclass(slots=True)
class SentRequest:
    """A request that is not over.

    Attributes:
        model: id of its model.
        message: what a node was sent, or will be.
        key: of its conversation.
        publish: takes its events.
        records: what it needs to go on elsewhere.
        node: the node that has it; "" while it is between two.
        identity: names the weights and settings of the engine there.
        is_accepted: whether a node has accepted it, so that the client may have a part of the answer.
        has_begun: whether its present node has begun with it.
        is_cancelled: whether it was cancelled here.
        moves: nodes that it has lost.
        tried: nodes that have refused it.
    """

    model: str
    message: Request
    key: str
    publish: Publish
    records: RequestRecords = field(default_factory=RequestRecords)
    node: str = ""
    identity: str = ""
    is_accepted: bool = False
    has_begun: bool = False
    is_cancelled: bool = False
    moves: int = 0
    tried: set[str] = field(default_factory=set)
