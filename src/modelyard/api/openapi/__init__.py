"""The OpenAPI description of the HTTP API: /openapi.json, /docs and docs/http-api.md."""
