"""Runs browser.html in a headless Chromium: MQTT.JS SPKI URL...

MQTT.JS is the library's bundle for browsers, SPKI the hash of the public key that the broker's certificate has: of all
certificates without a known authority, the browser accepts that one alone. Prints what the page says, line by line.
"""

import ctypes
import http.server
import pathlib
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.parse

PAGE = pathlib.Path(__file__).with_name("browser.html")
LIBRARY, KEY, URLS = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
# What the page may take for one step, seconds; only a broken broker takes so long.
DEADLINE = 80
said = queue.Queue()


class Handler(http.server.BaseHTTPRequestHandler):
    FILES = {"/": (PAGE, "text/html"), "/mqtt.min.js": (LIBRARY, "text/javascript")}

    def do_GET(self):
        file, kind = self.FILES.get(urllib.parse.urlsplit(self.path).path, (None, None))
        self.answer(file.read_bytes() if file else b"", kind or "text/plain")

    def do_POST(self):
        said.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer(b"", "text/plain")

    def answer(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def end_with_us():
    """prctl(2), PR_SET_PDEATHSIG: no browser stays behind when this is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = f"http://127.0.0.1:{server.server_port}/?{urllib.parse.urlencode([('url', url) for url in URLS])}"
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", f"--ignore-certificate-errors-spki-list={KEY}",
                     f"--user-data-dir={profile}", page]
        with open(pathlib.Path(profile, "log"), "wb") as log:
            browser = subprocess.Popen(["chromium", *arguments], stdout=log, stderr=log, preexec_fn=end_with_us)
        try:
            while (line := said.get(timeout=DEADLINE)) != "done":
                if line.startswith("failed"):
                    sys.exit(line)
                print(line, flush=True)
        except queue.Empty:
            log = pathlib.Path(profile, "log").read_text(encoding="utf-8", errors="replace")
            sys.exit(f"nothing from the page for {DEADLINE} s:\n{log[-3000:]}")
        finally:
            browser.terminate()
            browser.wait()
    print("done", flush=True)


main()
