"""An MCP server without any library, for what no library would do: it floods, hangs, crashes, and writes garbage.

    python raw_peer.py [NAME…]       on standard input and output; names switch on odd behaviour

With ``serve_websocket`` the same server speaks over WebSocket.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}}


class Peer:
    """The server, whose messages go to ``send``."""

    def __init__(self, send, oddities=()):
        self.send, self.oddities = send, set(oddities)
        self.tools = ["echo", "hang", "freeze", "crash", "flood", "big", "progress", "grow", "error", "image", "log"]
        self.cancelled = []
        self.is_frozen = False

    def result(self, request, result):
        self.send({"jsonrpc": "2.0", "id": request, "result": result})

    def take(self, message):
        while self.is_frozen:
            time.sleep(1)
        match message.get("method"):
            case "initialize":
                self.initialize(message)
            case "ping":
                self.result(message["id"], {})
            case "tools/list":
                self.list_tools(message)
            case "tools/call":
                threading.Thread(target=self.call, args=(message,), daemon=True).start()
            case "resources/read":
                uri = message["params"]["uri"]
                self.result(message["id"], {"contents": [{"uri": uri, "text": f"content of {uri}"}]})
            case "notifications/cancelled":
                self.cancelled.append(message["params"]["requestId"])
            case _ if "id" in message and "method" in message:
                error = {"code": -32601, "message": "Method not found"}
                self.send({"jsonrpc": "2.0", "id": message["id"], "error": error})

    def initialize(self, message):
        if "mute" in self.oddities:
            return
        self.result(
            message["id"],
            {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {"listChanged": True}, "resources": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            },
        )

    def list_tools(self, message):
        if "endless" in self.oddities:
            page = int(message.get("params", {}).get("cursor") or 0)
            tools = [{"name": f"t{page}", "inputSchema": {"type": "object"}}]
            self.result(message["id"], {"tools": tools, "nextCursor": str(page + 1)})
            return
        names = [f"tool{number}" for number in range(10_000)] if "many" in self.oddities else self.tools
        tools = [{"name": name, "description": f"Does {name}.", "inputSchema": NUMBER} for name in names]
        if "deep" in self.oddities:
            schema = {"type": "object"}
            for _ in range(100):
                schema = {"type": "object", "properties": {"a": schema}}
            tools.append({"name": "deep", "inputSchema": schema})
        if "odd" in self.oddities:
            # JSON may escape halves of characters, and has numbers of any length.
            tools = [
                {"name": "half", "description": "Half \ud800.", "inputSchema": {"type": "object"}},
                {"name": "half \ud800", "inputSchema": {"type": "object"}},
                {"name": "large", "inputSchema": {"type": "object", "properties": {"a": {"maximum": 1 << 80}}}},
            ]
        self.result(message["id"], {"tools": tools})

    def call(self, message):
        request, name = message["id"], message["params"]["name"]
        arguments = message["params"].get("arguments") or {}
        match name:
            case "echo":
                self.text(request, json.dumps(arguments))
            case "hang":
                time.sleep(3600)
            case "freeze":
                self.text(request, "frozen")
                self.is_frozen = True
            case "crash":
                os._exit(9)
            case "flood":
                self.text(request, "x" * 100_000_000)
            case "big":
                self.text(request, "x" * 1_000_000)
            case "progress":
                token = message["params"]["_meta"]["progressToken"]
                for done in range(3):
                    params = {"progressToken": token, "progress": done, "total": 3, "message": f"step {done}\n"}
                    self.send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
                    time.sleep(0.15)
                self.text(request, "done")
            case "grow":
                self.tools.append(f"new{len(self.tools)}")
                self.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
                self.text(request, "grown")
            case "error":
                self.send({"jsonrpc": "2.0", "id": request, "error": {"code": -32000, "message": "out of\x1b order"}})
            case "image":
                content = [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]
                self.result(request, {"content": content})
            case "log":
                params = {"level": "info", "data": "hello"}
                self.send({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
                self.text(request, json.dumps({"cancelled": self.cancelled, "environ": dict(os.environ)}))
            case _:
                self.send({"jsonrpc": "2.0", "id": request, "error": {"code": -32602, "message": "Unknown tool"}})

    def text(self, request, text):
        self.result(request, {"content": [{"type": "text", "text": text}]})


def serve_stdio(oddities):
    lock = threading.Lock()

    def send(message):
        # With the id at the end, as the TypeScript SDK writes it.
        line = json.dumps({key: message[key] for key in reversed(message)}) + "\n"
        with lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    if "stubborn" in oddities:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "family" in oddities:
        # One child in the group of this process, and one that has left it.
        for new_session in (False, True):
            subprocess.Popen(["sleep", "3600"], start_new_session=new_session, stdin=subprocess.DEVNULL)
    if "noisy" in oddities:
        sys.stderr.write(f"a secret: {os.environ.get('A_SECRET')}\n" + "\x1b[31mred\n" * 1000 + "x" * 100_000 + "\n")
        sys.stderr.flush()
    if "garbage" in oddities:
        while True:
            sys.stdout.write("no message\n" * 1000)
            sys.stdout.flush()
    if "greeting" in oddities:
        sys.stdout.write("Welcome!\n\n{}\n")
    peer = Peer(send, oddities)
    for line in sys.stdin:
        peer.take(json.loads(line))
    while "stubborn" in oddities:
        time.sleep(1)


async def serve_websocket(socket):
    """Serve one connection of ``websockets``."""
    import asyncio

    loop = asyncio.get_running_loop()

    def send(message):
        asyncio.run_coroutine_threadsafe(socket.send(json.dumps(message)), loop)

    peer = Peer(send)
    async for frame in socket:
        peer.take(json.loads(frame))


if __name__ == "__main__":
    serve_stdio(sys.argv[1:])
