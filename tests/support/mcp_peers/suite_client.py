"""The client that the suite of the protocol's authors examines: ``python suite_client.py URL`` calls every tool."""

import asyncio
import sys

from modelyard.config import validate_config
from modelyard.mcp.clients import McpClients


async def main(url: str) -> None:
    server = {"name": "suite", "url": url}
    clients = McpClients(validate_config({"models": [{"model_id": "org/model"}], "mcp": {"servers": [server]}}))
    clients.start()
    try:
        await clients.wait_settled()
        for tool in clients.all_tools():
            print(await tool.run({"a": 5, "b": 3}, lambda _: None), file=sys.stderr)
    finally:
        await clients.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
