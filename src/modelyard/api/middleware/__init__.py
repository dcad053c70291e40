"""What stands between the HTTP server and the routes, in plain ASGI: it passes ``send`` on as it is."""
