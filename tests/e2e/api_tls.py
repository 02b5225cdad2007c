#!/usr/bin/env python3
"""TLS: what is answered over it is what is answered without, and certificates are renewed under way."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

from certificates import Authority
from daemon import (LONG, MODEL, PATIENCE, PROGRAM, SMALL, Background, Daemon, enter_class, images_of, read_response,
                    wait_until)

# Pictures that hardly compress: an answer of 6 MB.
LARGE = {"prompt": "a red circle", "width": 1024, "height": 1024, "num_images": 2, "steps": 1, "guidance_scale": 1,
         "pruning": "off", "seed": 3}


class TlsDaemon(Daemon):
    """With a second listener that speaks TLS, at `tls_port`."""

    def __init__(self, folder, **options):
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        super().__init__(listen="127.0.0.1:0,https://127.0.0.1:0", tls_cert=self.cert, tls_key=self.key, **options)

    def __enter__(self):
        super().__enter__()
        self.tls_port = int(self.process.stdout.readline().removeprefix("atedmd listening on https://127.0.0.1:"))
        return self

    def connect_tls(self, context):
        return context.wrap_socket(socket.create_connection((self.host, self.tls_port), PATIENCE),
                                   server_hostname="localhost")

    def tls_connection(self, context):
        return http.client.HTTPSConnection("localhost", self.tls_port, timeout=PATIENCE, context=context)

    def reload(self):
        """Sends SIGHUP: the line of the log that tells the outcome."""
        seen = len(self.log())
        self.process.send_signal(signal.SIGHUP)

        def outcome():
            lines = [line for line in self.log()[seen:].splitlines() if "reloaded" in line]
            return lines and lines[-1]

        return wait_until(outcome, "reloaded, or not")


def post(fields):
    body = json.dumps(fields).encode()
    return (b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body)


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.authority = Authority(cls.folder)
        cls.authority.sign(cls.folder / "cert.pem", cls.folder / "key.pem")
        cls.context = cls.authority.context()
        cls.d = enter_class(cls, TlsDaemon(cls.folder))

    def over_tls(self, method, path, fields=None, connection=None):
        own = connection is None
        c = connection or self.d.tls_connection(self.context)
        try:
            return self.d.request(method, path, None if fields is None else json.dumps(fields),
                                  {"Content-Type": "application/json"}, connection=c)
        finally:
            if own:
                c.close()

    def curl(self, *arguments):
        return subprocess.run(["curl", "-sS", "--max-time", str(PATIENCE), *arguments], capture_output=True, text=True,
                              check=False)

    def test_curl(self):
        url = f"https://localhost:{self.d.tls_port}"
        result = self.curl("--cacert", str(self.authority.file), "-H", "Content-Type: application/json", "-d",
                           json.dumps(SMALL), "-w", "\n%{http_code} %{ssl_verify_result}", url + "/generate")
        body, end = result.stdout.rsplit("\n", 1)
        self.assertEqual(end, "200 0", result.stderr)
        self.assertEqual(json.loads(body)["images"], self.d.generate().json()["images"])
        # By an authority that curl does not know: it is TLS that the daemon speaks.
        result = self.curl(url + "/healthz")
        self.assertEqual(result.returncode, 60, result.stderr)

    def test_versions(self):
        for version, there in (("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            result = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{self.d.tls_port}", version, "-cipher",
                                     "DEFAULT@SECLEVEL=0", "-CAfile", str(self.authority.file), "-verify_return_error"],
                                    input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertEqual(result.returncode == 0, there, f"{version}: {result.stdout}{result.stderr}")
            self.assertEqual("Cipher is (NONE)" in result.stdout, not there)

    def test_no_tls_on_the_tls_port(self):
        with socket.create_connection((self.d.host, self.d.tls_port), PATIENCE) as s:
            s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertNotIn(b"HTTP", s.recv(1000))
        self.assertEqual(self.over_tls("GET", "/healthz").status, 200)

    def test_many_requests_on_a_connection(self):
        connection = self.d.tls_connection(self.context)
        for fields in (SMALL, {}, SMALL, {**SMALL, "steps": 0}, SMALL):
            self.assertEqual(self.over_tls("POST", "/generate", fields, connection).status, 200 if fields == SMALL else 422)
        connection.close()

    def test_many_at_once(self):
        expected = images_of(self.d.generate())
        waiting = [Background(lambda: self.over_tls("POST", "/generate", SMALL)) for _ in range(24)]
        for background in waiting:
            self.assertEqual(images_of(background.answer()), expected)

    def test_large_answers(self):
        once = {"Idempotency-Key": "large"}  # made once, sent twice
        answer = self.d.post("/generate", LARGE, once)
        self.assertEqual(answer.status, 200)
        self.assertGreater(len(answer.body), 6e6)
        connection = self.d.tls_connection(self.context)
        with_tls = self.d.post("/generate", LARGE, once, connection=connection)
        connection.close()
        self.assertEqual(with_tls.status, 200)
        self.assertEqual(images_of(with_tls), images_of(answer))

    def test_large_bodies(self):
        # As large as allowed, in one piece: what GnuTLS has read already must not be waited for.
        for size, status in ((1 << 20, 422), ((1 << 20) + 1, 413)):
            self.assertEqual(self.over_tls("POST", "/generate", "x" * (size - 2)).status, status)  # in quotes

    def test_small_pieces(self):
        data = post(SMALL)
        with self.d.connect_tls(self.context) as s:
            for i in range(0, len(data), 8):
                s.sendall(data[i:i + 8])
            self.assertEqual(read_response(s).status, 200)

    def test_client_that_does_not_read(self):
        with self.d.connect_tls(self.context) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.sendall(post({**SMALL, "width": 128, "height": 128, "num_images": 8, "steps": 1}))
            for _ in range(3):
                self.assertEqual(self.d.generate().status, 200)
            self.assertEqual(len(images_of(read_response(s))), 8)

    def test_hang_up(self):
        with self.d.connect_tls(self.context) as s:
            s.sendall(post(LONG))
            wait_until(lambda: self.d.gauge("atedm_active_requests") == 1, "it runs")
        wait_until(lambda: self.d.gauge("atedm_active_requests") == 0, "it was canceled")

    def test_events(self):
        job = self.d.post("/generate", LONG, {"Prefer": "respond-async"}).json()
        with self.d.connect_tls(self.context) as s:
            s.sendall(f"GET /jobs/{job['id']}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = b""
            while got.count(b"event: progress") < 3:  # each as it happens
                piece = s.recv(1 << 16)
                self.assertTrue(piece, got)
                got += piece
            self.assertEqual(self.d.get(f"/jobs/{job['id']}").json()["state"], "running")
            self.d.request("DELETE", f"/jobs/{job['id']}")
            while b"event: error" not in got:
                piece = s.recv(1 << 16)
                self.assertTrue(piece, got)
                got += piece

    def test_the_loop_sleeps(self):
        pid = self.d.process.pid

        def seconds():
            fields = pathlib.Path(f"/proc/{pid}/task/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        silent = socket.create_connection((self.d.host, self.d.tls_port), PATIENCE)
        with silent, self.d.connect_tls(self.context) as idle, self.d.connect_tls(self.context) as busy:
            idle.sendall(b"GET /he")
            busy.sendall(post(LONG) + post(SMALL) * 100)  # more than it wants for now
            time.sleep(0.5)
            before = seconds()
            time.sleep(1)
            self.assertLess(seconds() - before, 0.2)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="atedmd-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.authority = Authority(self.folder)
        self.serial = self.sign()

    def sign(self, **more):
        return self.authority.sign(self.folder / "cert.pem", self.folder / "key.pem", **more)

    def serial_of(self, s):
        return s.getpeercert()["serialNumber"]


class Renewal(Folder):
    def serial_now(self, d, context):
        with d.connect_tls(context) as s:
            return self.serial_of(s)

    def test_under_running_connections(self):
        context = self.authority.context()
        with TlsDaemon(self.folder) as d, d.connect_tls(context) as running, d.connect_tls(context) as idle:
            running.sendall(post({**LONG, "steps": 4}))
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            # Its handshake has begun, and ends behind the reload.
            early = socket.create_connection((d.host, d.tls_port), PATIENCE)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it is accepted")
            serials = [self.serial]
            for _ in range(3):
                serials.append(self.sign())
                self.assertEqual(self.serial_now(d, context), serials[-2], "not before it is told")
                self.assertIn("info reloaded", d.reload())
                self.assertEqual(self.serial_now(d, context), serials[-1])
            self.assertEqual(len(set(serials)), 4)
            with context.wrap_socket(early, server_hostname="localhost") as s:
                self.assertEqual(self.serial_of(s), serials[0])
            idle.sendall(post(SMALL))
            self.assertEqual(read_response(idle).status, 200)
            self.assertEqual(len(images_of(read_response(running))), 4)

    def test_a_chain(self):
        # Signed by one whom clients do not know, but who is signed by one whom they do.
        between = Authority(self.folder, "between", above=self.authority)
        context = self.authority.context()
        with TlsDaemon(self.folder) as d:
            serial = between.sign(d.cert, d.key)
            d.reload()
            with self.assertRaises(ssl.SSLCertVerificationError):
                d.connect_tls(context)
            d.cert.write_bytes(d.cert.read_bytes() + between.file.read_bytes())
            d.reload()
            self.assertEqual(self.serial_now(d, context), serial)

    def test_other_files(self):
        context = self.authority.context()
        config = self.folder / "atedmd.json"
        moved = {"tls_cert": str(self.folder / "new.pem"), "tls_key": str(self.folder / "new.key")}
        config.write_text(json.dumps({"tls_cert": str(self.folder / "cert.pem"), "tls_key": str(self.folder / "key.pem")}))
        daemon = TlsDaemon(self.folder, config=config)
        for flag in ("--tls-cert", "--tls-key"):  # what is on the command line stays
            at = daemon.command.index(flag)
            del daemon.command[at:at + 2]
        with daemon as d:
            serial = self.authority.sign(moved["tls_cert"], moved["tls_key"])
            config.write_text(json.dumps(moved))
            self.assertIn("new.pem", d.reload())
            self.assertEqual(self.serial_now(d, context), serial)
            self.assertIn(f"expires soon file=\"{moved['tls_cert']}\"", d.log())

    def test_wrong_files_change_nothing(self):
        context = self.authority.context()
        with TlsDaemon(self.folder) as d:
            def check(message):
                line = d.reload()
                self.assertIn("error not reloaded: everything stays as it was", line)
                self.assertIn(message, line)
                self.assertEqual(self.serial_now(d, context), self.serial)

            good = d.key.read_bytes()
            d.key.unlink()
            check("tls_key: ")
            d.key.write_bytes(good[:100])
            check("no key in PEM without a passphrase")
            self.authority.sign(self.folder / "other.pem", d.key)
            check("key.pem is not the key of ")
            d.key.write_bytes(good)
            d.cert.write_text("nothing")
            check("no certificate in PEM")
            d.cert.write_bytes(b"\n" * ((1 << 20) + 1))
            check("tls_cert: ")
            self.sign()
            self.assertIn("info reloaded", d.reload())
            self.assertNotEqual(self.serial_now(d, context), self.serial)

    def test_expired(self):
        self.sign(days=-1)
        context = self.authority.context()
        with TlsDaemon(self.folder) as d:
            self.assertIn("warning the certificate has expired", d.log())
            with self.assertRaisesRegex(ssl.SSLCertVerificationError, "expired"):
                d.connect_tls(context)
            serial = self.sign(days=90)
            self.assertIn("info reloaded", d.reload())
            self.assertEqual(self.serial_now(d, context), serial)
            self.assertIn("info certificate file=", d.log())
            self.assertNotIn("everybody on this machine can read the key", d.log())
            d.key.chmod(0o644)
            d.reload()
            self.assertIn("everybody on this machine can read the key", d.log())
            self.sign(days=3)
            d.reload()
            self.assertIn("warning the certificate expires soon", d.log())


class Limits(Folder):
    def test_who_does_not_shake_hands_is_closed(self):
        with TlsDaemon(self.folder, connection_timeout_s=1) as d:
            for data in (b"", b"\x16\x03\x01\x02\x00\x01"):  # nothing, and the begin of a hello
                with socket.create_connection((d.host, d.tls_port), PATIENCE) as s:
                    s.sendall(data)
                    while s.recv(100):
                        pass  # an alert

    def test_connections_of_both_kinds_count(self):
        context = self.authority.context()
        with TlsDaemon(self.folder, max_connections=3) as d:
            time.sleep(0.3)  # connections of the start go
            idle = [d.connect_tls(context), d.connect_tls(context), d.connect()]
            time.sleep(0.3)
            with d.connect() as waits:
                waits.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                waits.settimeout(0.5)
                with self.assertRaises(TimeoutError):
                    waits.recv(1)
                idle.pop(0).close()
                waits.settimeout(PATIENCE)
                self.assertEqual(read_response(waits).status, 200)
            for s in idle:
                s.close()

    def run_refused(self, message, *flags):
        result = subprocess.run([PROGRAM, "--model", MODEL, "--job-store", str(self.folder / "refused.db"), *flags],
                                capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertEqual((result.returncode, result.stdout), (2, ""), result.stderr)
        self.assertIn(message, result.stderr)

    def test_start(self):
        https = ("--listen", "https://127.0.0.1:0")
        cert, key = str(self.folder / "cert.pem"), str(self.folder / "key.pem")
        self.run_refused("tls_cert: listen has an https:// address, which needs it", *https)
        self.run_refused("tls_key: tls_cert needs it", *https, "--tls-cert", cert)
        self.run_refused("tls_cert: tls_key needs it", *https, "--tls-key", key)
        self.run_refused("tls_cert: no address of listen begins with https://", "--listen", "127.0.0.1:0",
                         "--tls-cert", cert, "--tls-key", key)
        self.run_refused("tls_cert: /nonexistent", *https, "--tls-cert", "/nonexistent", "--tls-key", key)
        self.run_refused("no key in PEM", *https, "--tls-cert", cert, "--tls-key", cert)
        shutil.copy(key, self.folder / "locked.key")
        subprocess.run(["openssl", "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out",
                        str(self.folder / "locked.key")], check=True, capture_output=True)
        self.run_refused("without a passphrase", *https, "--tls-cert", cert, "--tls-key", str(self.folder / "locked.key"))


if __name__ == "__main__":
    unittest.main()
