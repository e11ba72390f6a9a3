"""Serve the example on loopback, with what WebAssembly in threads asks of a server. Nothing beside the folder is reachable.

Run: python examples/browser/serve.py [--port 8000]
"""

import argparse
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


class Handler(SimpleHTTPRequestHandler):
    """Files of the folder with their types and the headers that make the page cross-origin isolated, which threads need."""

    extensions_map = {  # noqa: RUF012 - the base class declares it
        **SimpleHTTPRequestHandler.extensions_map,
        ".wasm": "application/wasm",  # anything else is not compiled while it arrives
        ".mjs": "text/javascript",
        ".onnx": "application/octet-stream",
    }
    isolation = (
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Cross-Origin-Embedder-Policy", "require-corp"),
        # Whatever comes from elsewhere is refused by the browser: the parts are the ones of package-lock.json.
        (
            "Content-Security-Policy",
            "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; img-src 'self' blob: data:",
        ),
        ("Cache-Control", "no-cache"),
    )

    def end_headers(self) -> None:
        """Add the headers to every answer."""
        for name, value in self.isolation:
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file, unless the browser goes away meanwhile, as on a reload."""
        with suppress(ConnectionError):
            super().copyfile(source, outputfile)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing of what went well."""


def make_server(port: int = 0, folder: Path = FOLDER, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """A server for the folder on loopback; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(handler, directory=str(folder)))


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    with make_server(parser.parse_args().port) as server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
