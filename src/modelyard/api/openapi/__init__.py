"""The description of the HTTP surface: /openapi.json, /docs, and docs/http-api.md."""
