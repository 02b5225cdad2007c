#!/usr/bin/env python3
"""Tests the manual pages: mandoc has no complaint; they describe each option of the programs and each member of the
configuration, with its default, and no others."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import unittest

ROOT = pathlib.Path(os.environ["ATEDM_SOURCE_DIR"])
PAGES = ROOT / "deploy/man"
COMMANDS = ("generate", "request", "inspect", "mkmodel", "key", "bench step", "bench serve")


def help_of(program, *command):
    return subprocess.run([os.environ[program], *command, "--help"], capture_output=True, text=True, check=True).stdout


def flags_of(text):
    """The options with which lines of --help begin."""
    begins = re.findall(r"^ {2}(-.*?)(?: {2,}|$)", text, re.MULTILINE)
    return {flag for line in begins for flag in re.findall(r"(?:^|[ ,])(--?[a-z][a-z-]*)", line)}


def items_of(page):
    """The options with which items of a page begin."""
    lines = re.findall(r"^\.It (.*Fl .*)$", page, re.MULTILINE)
    return {"-" + flag for line in lines for flag in re.findall(r"Fl (\S+)", line)}


def read(name):
    return (PAGES / name).read_text(encoding="utf-8")


class Pages(unittest.TestCase):
    def test_mandoc(self):
        if shutil.which("mandoc") is None:
            self.skipTest("no mandoc")
        for page in PAGES.iterdir():
            result = subprocess.run(["mandoc", "-T", "lint", "-W", "style", page], capture_output=True, text=True,
                                    check=False)
            # The pages refer to each other, and are not installed here.
            wrong = [line for line in result.stdout.splitlines() if "referenced manual not found" not in line
                     and "operating system" not in line]
            self.assertEqual(wrong, [], page.name)

    def test_atedmd(self):
        page = read("atedmd.8")
        text = help_of("ATEDMD")
        self.assertEqual(items_of(page) - flags_of(text), set(), "not an option")
        self.assertEqual(flags_of(text) - items_of(page), set(), "missing")
        for flag, default in re.findall(r"^ {2}--(\S+) .*\n.*\n.*default (.*)\]$", text, re.MULTILINE):
            item = page[page.index(f".It Fl -{flag} "):].split("\n.It", 1)[0]
            self.assertIn(f"Default: {default}.", item)

    def test_configuration(self):
        page = read("atedmd.json.5")
        defaults = json.loads((ROOT / "config/atedmd.json").read_text(encoding="utf-8"))
        members = re.findall(r"^\.It Cm (\w+)\n((?:.*\n)+?)(?=\.It|\.El)", page, re.MULTILINE)
        self.assertEqual([name for name, _ in members], list(defaults))
        api = (ROOT / "api.md").read_text(encoding="utf-8")
        taken_over = api[api.index("| taken over | |"):].split("\n\n", 1)[0]
        live = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in taken_over.splitlines()[2:])))
        for name, text in members:
            facts, _, about = text.replace("\n", " ").partition(".br")
            value = defaults[name]
            shown = value if isinstance(value, str) else json.dumps(value)
            shown = shown or "empty"
            self.assertRegex(facts, rf"^default: {re.escape(shown)}[.;]")
            self.assertEqual("reload." in facts, name in live, name)
            self.assertTrue(about.strip(), name)

    def test_options(self):
        """One set of them, in one order: in --help, in the file of defaults and in api.md's table."""
        defaults = json.loads((ROOT / "config/atedmd.json").read_text(encoding="utf-8"))
        told = dict(re.findall(r"; \"(\w+)\"; default (.*)\]$", help_of("ATEDMD"), re.MULTILINE))
        self.assertEqual(list(told), list(defaults))
        for name, value in defaults.items():
            self.assertEqual(told[name], (value if isinstance(value, str) else json.dumps(value)) or "none", name)
        api = (ROOT / "api.md").read_text(encoding="utf-8")
        table = api[api.index("| option | default | allowed | |\n"):].split("\n\n", 1)[0]
        rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
        self.assertEqual(len(rows), table.count("\n") - 1)
        self.assertEqual(rows, list(defaults))

    def test_atedm(self):
        page = read("atedm.1")
        sections = dict(re.findall(r"^\.Ss atedm (.*)\n((?:.*\n)+?)(?=\.S[sh])", page, re.MULTILINE))
        self.assertEqual(sorted(sections), sorted(COMMANDS))
        for command in COMMANDS:
            self.assertEqual(items_of(sections[command]), flags_of(help_of("ATEDM", *command.split())), command)
        listed = re.findall(r"^ {2}([a-z]+) ", help_of("ATEDM"), re.MULTILINE)
        self.assertEqual(sorted({command.split()[0] for command in COMMANDS}), sorted(listed))

    def test_samplers(self):
        """The samplers are those of openapi.json, which tests/e2e/api_openapi.py compares with the daemon's."""
        document = json.loads((ROOT / "server/openapi.json").read_text(encoding="utf-8"))
        schema = document["components"]["schemas"]["GenerateRequest"]["properties"]["sampler"]
        text = ", ".join(schema["enum"]) + "; default " + schema["default"]
        self.assertRegex(help_of("ATEDM", "generate"), rf"(?m)^  --sampler NAME +{text}$")
        self.assertIn(f"\n.It Fl -sampler Ar NAME\n{text}.\n", read("atedm.1"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
