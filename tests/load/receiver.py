"""Takes OTLP over HTTP and throws it away. Writes its port, then the bytes of each message, a line each, to the file it is given."""

import http.server
import sys

seen = open(sys.argv[1], "w", buffering=1)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        print(len(self.rfile.read(int(self.headers["content-length"]))), file=seen)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, file=seen)
server.serve_forever()
