"""A stand-in for an API: answers every request on 127.0.0.1:8081 with the headers that have reached it."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        lines = [f"{self.command} {self.path} has reached the API.\n"]
        lines += [f"{name.lower()}: {value}\n" for name, value in self.headers.items()]
        body = "".join(lines).encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, format, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", 8081), Api).serve_forever()
