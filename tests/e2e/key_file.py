"""API keys and configuration files for tests, and the reload that makes a daemon read them."""
import hashlib
import json
import pathlib
import re
import secrets
import signal
import tempfile

from daemon import LONG, wait_until


def make_key():
    return "atedm_" + secrets.token_hex(32)


def entry(name, key, **more):
    """The entry of a key file."""
    return {"name": name, "hash": "sha256:" + hashlib.sha256(key.encode()).hexdigest(), **more}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


class JsonFile:
    """A file of its own whose content can be written again; str() is its path."""

    def __init__(self, case, content):
        folder = tempfile.TemporaryDirectory()
        case.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "file.json"
        self.write(content)

    def write(self, content):
        """`content`: anything for JSON, or text as it is."""
        self.path.write_text(content if isinstance(content, str) else json.dumps(content))

    def __str__(self):
        return str(self.path)


class KeyFile(JsonFile):
    def __init__(self, case, *entries):
        super().__init__(case, {"keys": entries})

    def set(self, *entries):
        self.write({"keys": entries})


def reload(d, outcome="reloaded"):
    """Sends SIGHUP, waits for its outcome, "reloaded" or "not reloaded", and returns the log's lines about it."""
    before = len(d.log())
    d.process.send_signal(signal.SIGHUP)
    end = re.compile(r'(?:^\S+Z \w+ |"message":")(not reloaded|reloaded)\b', re.MULTILINE)
    match = wait_until(lambda: end.search(d.log()[before:]), "the reload")
    assert match.group(1) == outcome, d.log()[before:]
    d.get("/healthz")  # the loop's next round: what the reload logs is all there
    return d.log()[before:]


def start(d, key, fields=None):
    """Sends a request with this key and leaves: the socket, to be read from or closed."""
    body = json.dumps(fields or LONG).encode()
    s = d.connect()
    s.sendall(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              b"Authorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
              % (key.encode(), len(body)) + body)
    return s
