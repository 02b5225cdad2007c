#!/usr/bin/env python3
"""GET /openapi.json is complete and true: it is OpenAPI 3.1, has every route, field and kind of problem of the sources
and none more, every answer of a live daemon is one that it knows, and it refuses the bodies that the daemon refuses."""
import copy
import json
import math
import pathlib
import re
import resource
import signal
import tempfile
import time
import types
import unittest

from jsonschema import Draft202012Validator

from daemon import LONG, PATIENCE, SMALL, Background, Daemon, enter_class, images_of, read_png, wait_until
from key_file import JsonFile, KeyFile, bearer, entry, make_key, reload
from openapi_document import FORM, Document, parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "server/openapi.json"
ASYNC = {"Prefer": "respond-async"}
OFF = {"prompt": "a", "pruning": "off"}


def source(path):
    return (ROOT / path).read_text(encoding="utf-8")


def document(d):
    answer = d.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return Document(answer.body)


def walk(value, where=""):
    """Every object in a JSON value, with its place."""
    if isinstance(value, dict):
        yield where, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from walk(item, f"{where}/{key}")


class Form(unittest.TestCase):
    """What can be said without sending anything else."""

    @classmethod
    def setUpClass(cls):
        for_class = types.SimpleNamespace(addCleanup=cls.addClassCleanup)
        cls.d = enter_class(cls, Daemon(wait=False, default_pruning="at-edm-dagger", latency_objective_s=1000,
                                        api_keys=KeyFile(for_class, entry("alice", make_key()))))
        cls.document = document(cls.d)

    def test_it_is_openapi(self):
        Draft202012Validator.check_schema(FORM)
        for error in Draft202012Validator(FORM).iter_errors(self.document.value):
            self.fail(f"{list(error.absolute_path)}: {error.message}")
        # The judge judges: each of these is not OpenAPI.
        for place, key, value in (("/info", "verzion", "1"), ("/paths/~1generate/post", "respones", {}),
                                  ("/paths", "generate", {}), ("/components", "schema", {}),
                                  ("/components/schemas/Id", "type", "text")):
            wrong = copy.deepcopy(self.document)
            wrong.follow("#" + place)[key] = value
            self.assertFalse(Draft202012Validator(FORM).is_valid(wrong.value), (place, key))

    def test_references(self):
        used = set()
        for where, item in walk(self.document.value):
            ref = item.get("$ref")
            if ref is not None:
                self.assertRegex(ref, "^#/components/", where)
                self.document.follow(ref)
                used.add(ref)
        there = {f"#/components/{kind}/{name}" for kind, items in self.document.value["components"].items()
                 for name in items if kind != "securitySchemes"}
        self.assertEqual(used, there, "each component is used, and is there")
        for requirement in self.document.value["security"]:
            self.assertLessEqual(set(requirement), set(self.document.value["components"]["securitySchemes"]))

    def test_names(self):
        operations = self.document.operations()
        ids = [operation["operationId"] for _, _, operation in operations]
        self.assertEqual(len(set(ids)), len(ids))
        tags = {tag["name"] for tag in self.document.value["tags"]}
        self.assertEqual({tag for _, _, operation in operations for tag in operation["tags"]}, tags)
        for path, item in self.document.value["paths"].items():
            parameters = map(self.document.resolve, item.get("parameters", []))
            self.assertEqual([p["name"] for p in parameters if p["in"] == "path"], re.findall(r"\{(\w+)\}", path))

    def test_objects_are_closed(self):
        """Of answers and requests all fields are known; what has any keys says of what kind."""
        for where, item in walk(self.document.schemas):
            if item.get("type") == "object":
                self.assertIn("additionalProperties", item, where)
                closed = item["additionalProperties"] is False
                self.assertTrue(closed or isinstance(item["additionalProperties"], dict), where)
                self.assertLessEqual(set(item.get("required", [])), set(item.get("properties", {})), where)

    def test_routes(self):
        rows = re.findall(r'\{"(/[^"]*)", (\w+), (\w+), (\w+), (\w+)\}', source("server/routes.c"))
        self.assertGreater(len(rows), 10)
        self.assertEqual(len(rows), source("server/routes.c").count('{"'))
        routes = {(path, method) for path, *handlers, _ in rows
                  for method, handler in zip(("get", "post", "delete"), handlers) if handler != "NULL"}
        self.assertEqual({(path, method) for path, method, _ in self.document.operations()}, routes)
        opened = {path for path, *_, access in rows if access == "ATEDM_ROUTE_OPEN"}
        self.assertEqual({path for path, _, o in self.document.operations() if o.get("security") == []}, opened)

    def test_fields(self):
        schemas = self.document.schemas
        fields = re.findall(r'^    \{"(\w+)", read_', source("server/generate_json.c"), re.MULTILINE)
        self.assertEqual(list(schemas["GenerateRequest"]["properties"]), fields)
        known = [re.findall(r'"(\w+)"', found) for found in
                 re.findall(r"known\[\] = \{(.*?)\}", source("core/prune_json.c"), re.DOTALL)]
        described = [list(schemas[name]["properties"]) for name in ("PruningPhase", "PruningScore", "PruningObject")]
        self.assertEqual(described, known)
        for name, field in schemas["GenerateRequest"]["properties"].items():
            self.assertTrue(field["description"], name)
            self.assertEqual("default" in field, name != "prompt", name)

    def test_problems(self):
        kinds = {"urn:atedm:problem:" + kind: int(status) for status, kind in
                 re.findall(r'\{(\d{3}), "([a-z-]+)"', source("server/problem.c"))}
        problem = self.document.schemas["Problem"]["properties"]
        self.assertEqual(problem["type"]["enum"], list(kinds))
        self.assertEqual(problem["status"]["enum"], sorted(set(kinds.values())))
        seen = set()
        for path, method, operation in self.document.operations():
            for status in operation["responses"]:
                if int(status) >= 400:
                    content = self.document.response(path, method, status)["content"]
                    narrowed = content["application/problem+json"]["schema"]["properties"]["type"]
                    types = narrowed.get("enum", [narrowed.get("const")])
                    self.assertEqual({kinds[kind] for kind in types}, {int(status)}, (path, method))
                    seen.update(types)
        self.assertEqual(set(kinds) - seen, {"urn:atedm:problem:method"}, "no operation has a wrong method")

    def test_names_of_the_daemon(self):
        admin = Daemon(default_pruning="off")
        with admin as d:
            samplers = [s["name"] for s in d.get("/v1/samplers").json()["samplers"]]
            presets = [p["preset"] for p in d.get("/v1/schedules").json()["presets"]]
        sampler = self.document.schemas["GenerateRequest"]["properties"]["sampler"]
        self.assertEqual((sampler["enum"], sampler["default"]), (samplers, samplers[0]))
        self.assertEqual(self.document.schemas["PresetName"]["enum"], presets)
        self.assertEqual(self.document.schemas["PruningName"]["enum"], presets + ["auto"])

    def test_the_file_is_what_is_served(self):
        """With keys, an objective, and else the options that are the default."""
        written = parse(FILE.read_text(encoding="utf-8"))
        served = copy.deepcopy(self.document.value)
        for value in (written, served):
            for side in ("width", "height"):  # the model's
                value["components"]["schemas"]["GenerateRequest"]["properties"][side]["default"] = 0
        self.assertEqual(served, written)

    def test_head_and_methods(self):
        for method, status in (("HEAD", 200), ("POST", 405), ("DELETE", 405)):
            self.assertEqual(self.d.request(method, "/openapi.json").status, status)
        self.assertEqual(self.d.get("/openapi.json").headers["Cache-Control"], "no-cache")
        wrong = self.d.request("POST", "/openapi.json")
        self.document.check({"$ref": "#/components/schemas/Problem"}, wrong.json())


# ---- requests

# Bodies with which the daemon and the schema find the same fields wrong.
WRONG = [
    ({"prompt": None}, ["/prompt"]),
    ({"prompt": ""}, ["/prompt"]),
    ({"prompt": ["a"]}, ["/prompt"]),
    ({"negative_prompt": 1}, ["/negative_prompt"]),
    ({"width": 12}, ["/width"]),
    ({"height": 0}, ["/height"]),
    ({"width": -8, "height": "32"}, ["/height", "/width"]),
    ({"steps": 0, "seed": -1, "num_images": 9}, ["/num_images", "/seed", "/steps"]),
    ({"steps": 4.5}, ["/steps"]),
    ({"guidance_scale": 31}, ["/guidance_scale"]),
    ({"seed": 2**63}, ["/seed"]),
    ({"seed": 2**70}, ["/seed"]),
    ({"sampler": "heun"}, ["/sampler"]),
    ({"sampler": "e" * 100}, ["/sampler"]),
    ({"response_format": "jpeg"}, ["/response_format"]),
    ({"response_format": "png", "num_images": 2}, ["/response_format"]),
    ({"deadline_s": 0}, ["/deadline_s"]),
    ({"priority": 11}, ["/priority"]),
    ({"Steps": 4}, ["/Steps"]),
    ({"a/b": 1, "~": 2}, ["/a~1b", "/~0"]),
    ({"pruning": None}, ["/pruning"]),
    ({"pruning": 0.5}, ["/pruning"]),
    ({"pruning": "at-edm-z"}, ["/pruning"]),
    ({"pruning": "auto"}, ["/pruning"]),
    ({"pruning": {"preset": "auto"}}, ["/pruning/preset"]),
    ({"pruning": {"preset": "off", "ratio": 0.5}}, ["/pruning/preset"]),
    ({"pruning": {"ratio": 1, "mode": 1}}, ["/pruning/mode", "/pruning/ratio"]),
    ({"pruning": {"ratio": 0.5, "flops_budget": 0.8}}, ["/pruning/flops_budget"]),
    ({"pruning": {"flops_budget": 0}}, ["/pruning/flops_budget"]),
    ({"pruning": {"schedule": "cosine"}}, ["/pruning/schedule"]),
    ({"pruning": {"schedule": "uniform", "tau": 0.2}}, ["/pruning/tau"]),
    ({"pruning": {"preset": "at-edm-dagger", "tau": 0.2}}, ["/pruning/tau"]),
    ({"pruning": {"schedule": "dsap", "phases": [{"until": 1}]}}, ["/pruning/phases"]),
    ({"pruning": {"tau": 0.5, "phases": [{"until": 1}]}}, ["/pruning/phases"]),
    ({"pruning": {"phases": []}}, ["/pruning/phases"]),
    ({"pruning": {"phases": {"until": 1}}}, ["/pruning/phases"]),
    ({"pruning": {"phases": [1]}}, ["/pruning/phases/0"]),
    ({"pruning": {"phases": [{}]}}, ["/pruning/phases/0/until"]),
    ({"pruning": {"phases": [{"until": 0}, {"until": 1, "ratio": 1}]}},
     ["/pruning/phases/0/until", "/pruning/phases/1/ratio"]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["down"], "till": 1}]}},
     ["/pruning/phases/0/skip/0", "/pruning/phases/0/till"]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["up.01.0", 7, "mid.0", "down.last"]}]}},
     [f"/pruning/phases/0/skip/{i}" for i in range(4)]),
    ({"pruning": {"phases": [{"until": 1, "skip": ["mid"] * 17}]}}, ["/pruning/phases/0/skip"]),
    ({"pruning": {"phases": [{"until": (i + 1) / 17} for i in range(17)]}}, ["/pruning/phases"]),
    ({"pruning": {"flops_budget": 0.9, "phases": [{"until": 1, "ratio": 0.5}]}}, ["/pruning/flops_budget"]),
    ({"pruning": {"skip_levels": [8]}}, ["/pruning/skip_levels/0"]),
    ({"pruning": {"skip_levels": [0] * 9}}, ["/pruning/skip_levels"]),
    ({"pruning": {"skip_levels": 1}}, ["/pruning/skip_levels"]),
    ({"pruning": {"prune_after": []}}, ["/pruning/prune_after"]),
    ({"pruning": {"prune_after": [0, 32]}}, ["/pruning/prune_after/1"]),
    ({"pruning": {"prune_after": list(range(9))}}, ["/pruning/prune_after"]),
    ({"pruning": {"score": "self"}}, ["/pruning/score"]),
    ({"pruning": {"score": {"maps": "self"}}}, ["/pruning/score/maps"]),
    ({"pruning": {"score": {"map": "random", "heads": "rms", "tolerance": 0}}},
     ["/pruning/score/heads", "/pruning/score/tolerance"]),
    ({"pruning": {"recovery": "zeros"}}, ["/pruning/recovery"]),
]

GOOD = [
    {},
    {"negative_prompt": None, "seed": None, "deadline_s": None},
    {"negative_prompt": "", "guidance_scale": 0, "seed": 2**63 - 1},
    {"width": 64, "height": 96, "num_images": 2, "response_format": "url"},
    {"num_images": 1, "response_format": "png", "deadline_s": 0.001, "priority": -10},
    {"pruning": {}},
    {"pruning": {"preset": "off"}},
    {"pruning": {"preset": "at-edm-dagger", "schedule": "dsap", "tau": 0.2}},
    {"pruning": {"preset": "at-edm-a", "flops_budget": 1}},
    {"pruning": {"phases": [{"until": 0.5, "ratio": 0}, {"until": 1, "skip": ["down.first", "up.last", "mid"]}],
                 "ratio": 0.3}},
    {"pruning": {"flops_budget": 0.99, "phases": [{"until": 0.5, "ratio": 0.1}, {"until": 1}]}},
    {"pruning": {"skip_levels": [1, 1], "prune_after": [0, 31], "recovery": "zero"}},
    {"pruning": {"score": {"map": "random"}}},
    {"pruning": {"score": {"map": "cross", "heads": "mean", "max_iterations": 64, "tolerance": 2}}},
]

# What only the daemon can know, or JSON Schema has no words for; the document says so in others.
BEYOND = [
    ({"steps": 4.0}, "/steps"),
    ({"prompt": "\u00e4" * 4097}, "/prompt"),
    ({"width": 16384, "height": 16384}, "/width"),
    ({"seed": 2**63 - 1, "num_images": 2}, "/seed"),
    ({"pruning": {"flops_budget": 0.001}}, "/pruning/flops_budget"),
    ({"pruning": {"phases": [{"until": 0.5}]}}, "/pruning/phases/0/until"),
    ({"pruning": {"phases": [{"until": 1, "skip": ["down.9.9"]}]}}, "/pruning/phases"),
    ({"pruning": {"prune_after": [1, 0]}}, "/pruning/prune_after/1"),
]


def edges(schema):
    """(value, whether it is good) at the limits of a field's schema and a little beyond."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    for value, kind in ((None, "null"), (True, "boolean"), ({}, "object"), ("\u2208", "string")):
        if kind not in kinds:
            yield value, False
    if "null" in kinds:
        yield None, True
    for value in schema.get("enum", ()):
        yield value, True
    if "enum" in schema:
        yield schema["enum"][0] + "\u2208", False
    if "minLength" in schema:
        yield "a" * schema["minLength"], True
        yield "a" * (schema["minLength"] - 1), False
    if "maxLength" in schema:
        yield "a" * schema["maxLength"], True
        yield "a" * (schema["maxLength"] + 1), False
    if "integer" in kinds:
        step = schema.get("multipleOf", 1)
        yield from ((schema["minimum"], True), (schema["minimum"] - step, False), (schema["maximum"], True),
                    (schema["maximum"] + step, False), (schema["minimum"] + 0.5, False))
        if step > 1:
            yield schema["minimum"] + 1, False
    elif "number" in kinds:
        low = schema.get("exclusiveMinimum")
        if low is None:
            low = schema["minimum"]
            yield low, True
            yield math.nextafter(low, -math.inf), False
        else:
            yield low, False
        yield from ((schema["maximum"], True), (math.nextafter(schema["maximum"], math.inf), False))


class Requests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # An area that lets either side have its largest value.
        cls.d = enter_class(cls, Daemon(max_area=16384 * 64))
        cls.document = document(cls.d)

    def verdicts(self, body):
        """(fields that the daemon finds wrong, those that the schema finds wrong)."""
        answer = self.d.post("/v1/estimate", body)
        self.assertIn(answer.status, (200, 422), answer.body)
        return ([] if answer.status == 200 else answer.pointers()), self.document.wrong_in_body(body)

    def test_wrong_bodies(self):
        for fields, pointers in WRONG:
            for found in self.verdicts({**SMALL, **fields}):
                self.assertEqual(found, sorted(pointers), fields)

    def test_no_object_and_no_prompt(self):
        for body, pointers in ((None, [""]), ([], [""]), ("a", [""]), ({}, ["/prompt"]), ({"steps": 0}, ["/prompt", "/steps"])):
            for found in self.verdicts(body):
                self.assertEqual(found, pointers)

    def test_good_bodies(self):
        for fields in GOOD:
            for found in self.verdicts({**SMALL, **fields}):
                self.assertEqual(found, [], fields)

    def test_beyond_a_schema(self):
        for fields, where in BEYOND:
            self.assertEqual(self.verdicts({**SMALL, **fields}), ([where], []), fields)

    def test_edges_of_every_field(self):
        schemas = self.document.schemas
        # Which schema; how a field's value gets into a body; which fields are not told by their own schema.
        objects = [("GenerateRequest", lambda name, value: {**SMALL, "width": 64, "height": 64, name: value}, {"pruning"}),
                   ("PruningObject", lambda name, value: {**SMALL, "pruning": {name: value}},
                    {"phases", "skip_levels", "prune_after", "score"}),
                   ("PruningScore", lambda name, value: {**SMALL, "pruning": {"score": {name: value}}}, set()),
                   ("PruningPhase", lambda name, value:
                    {**SMALL, "pruning": {"phases": [{"until": 1, name: value}]}}, {"skip"})]
        count = 0
        for schema, body, others in objects:
            for name, field in schemas[schema]["properties"].items():
                if name in others:
                    continue
                for value, good in edges(self.document.resolve(field)):
                    count += 1
                    daemon, judged = self.verdicts(body(name, value))
                    self.assertEqual((daemon, not daemon), (judged, good), (schema, name, value))
                    if not good:
                        self.assertEqual(len(daemon), 1)
                        self.assertTrue(daemon[0].endswith("/" + name), daemon)
        self.assertGreater(count, 100)

    def test_defaults_are_what_is_done(self):
        """A body that spells all defaults is estimated and answered as one without them, to the picture's last bit."""
        fields = self.document.schemas["GenerateRequest"]["properties"]
        spelt = {name: field["default"] for name, field in fields.items() if "default" in field}
        self.assertEqual(spelt["pruning"], "at-edm")
        self.assertEqual(self.document.wrong_in_body({"prompt": "a", **spelt}), [])
        short, long = (self.d.post("/v1/estimate", {"prompt": "a", **more}).json() for more in ({}, spelt))
        for value in (short, long):
            del value["expected"]
        self.assertEqual(short, long)
        self.assertEqual([short[name] for name in ("width", "height", "steps", "num_images")],
                         [spelt[name] for name in ("width", "height", "steps", "num_images")])
        small = {**SMALL, "pruning": {"ratio": 0.4}}
        self.assertEqual(*(images_of(self.d.post("/generate", body)) for body in (small, {**spelt, **small})))
        for name in spelt:  # what may be null is so where it is absent
            self.assertEqual("null" in fields[name].get("type", []), spelt[name] is None, name)

    def test_examples(self):
        examples = self.document.value["components"]["requestBodies"]["Generate"]["content"]["application/json"]["examples"]
        self.assertGreaterEqual(len(examples), 2)
        for example in examples.values():
            self.assertEqual(self.verdicts(example["value"]), ([], []))


# ---- what follows the options


class Options(unittest.TestCase):
    def check_body(self, d, body, pointers):
        answer = d.post("/v1/estimate", {"prompt": "a", "pruning": "off", **body})
        found = [] if answer.status == 200 else answer.pointers()
        self.assertEqual(found, pointers, answer.body)
        self.assertEqual(document(d).wrong_in_body({"prompt": "a", **body}), pointers)

    def field(self, d, name):
        return document(d).schemas["GenerateRequest"]["properties"][name]

    def test_command_line(self):
        with Daemon(max_steps=40, max_images=2, max_area=65536, default_pruning='{"ratio": 0.25}') as d:
            self.assertEqual(self.field(d, "steps")["maximum"], 40)
            self.assertEqual(self.field(d, "num_images")["maximum"], 2)
            self.assertEqual(document(d).schemas["GenerateRequest"]["x-max-area"], 65536)
            self.assertEqual(self.field(d, "pruning")["default"], {"ratio": 0.25})
            model, = d.get("/v1/models").json()["models"]
            for side in ("width", "height"):
                field = self.field(d, side)
                self.assertEqual((field["multipleOf"], field["minimum"], field["default"]),
                                 (model["size_multiple"], model["size_multiple"], model["native_" + side]))
            version = re.search(r"version: '([^']*)'", source("meson.build")).group(1)
            self.assertEqual(document(d).value["info"]["version"], version)
            self.check_body(d, {"steps": 40, "num_images": 2}, [])
            self.check_body(d, {"steps": 41, "num_images": 3}, ["/num_images", "/steps"])

    def test_fewer_steps_than_the_default(self):
        with Daemon(max_steps=30) as d:
            self.check_body(d, {}, [])
        with Daemon(max_steps=29) as d:
            self.check_body(d, {}, ["/steps"])
            self.check_body(d, {"steps": 29}, [])

    def test_reload(self):
        file, keys = JsonFile(self, {"max_steps": 50}), KeyFile(self, entry("alice", make_key()))
        with Daemon(config=file, default_pruning=None) as d:
            before = document(d).value
            self.assertEqual(before["security"], [])
            self.check_body(d, {"steps": 51}, ["/steps"])
            self.check_body(d, {"pruning": "auto"}, ["/pruning"])
            file.write({"max_steps": 60, "max_images": 3, "default_pruning": "auto", "latency_objective_s": 100})
            reload(d)
            self.check_body(d, {"steps": 60, "num_images": 3, "pruning": "auto"}, [])
            self.check_body(d, {"steps": 61, "num_images": 4}, ["/num_images", "/steps"])
            self.assertEqual(self.field(d, "pruning")["default"], "auto")
            file.write({"max_steps": 0})
            reload(d, "not reloaded")
            self.check_body(d, {"steps": 60}, [])
            file.write({"max_steps": 50, "api_keys": str(keys)})
            reload(d)
            self.assertEqual(document(d).value, {**before, "security": [{"bearer": []}, {"apiKey": []}]})


# ---- answers

# What no test can bring about without breaking the machine: no memory, a broken worker or a store that cannot be read.
FAULTS = {"500", ("/jobs", "get", "503"), ("/jobs/{id}", "get", "503"), ("/jobs/{id}", "delete", "503"),
          ("/jobs/{id}/images/{n}", "get", "503"), ("/jobs/{id}/events", "get", "503")}


def sse(body):
    """[(event, data)] of a whole stream."""
    return [(name, json.loads(data)) for name, data in re.findall(r"^event: (\w+)\ndata: (.*)$", body.decode(), re.M)]


class Answers(unittest.TestCase):
    """Each documented answer, from a live daemon."""

    @classmethod
    def setUpClass(cls):
        cls.seen = set()  # (path, method, status)
        with Daemon() as d:
            cls.document = document(d)

    def test_every_documented_answer(self):
        for part in (self.success, self.jobs, self.refused, self.full_disk, self.draining, self.keys,
                     self.no_longer_allowed):
            with self.subTest(part.__name__):
                part()
        documented = {(path, method, status) for path, method, operation in self.document.operations()
                      for status in operation["responses"]}
        unseen = documented - self.seen
        self.assertEqual({item for item in unseen if item[2] not in FAULTS and item not in FAULTS}, set())

    def ask(self, d, method, path, status, fields=None, headers=None, kind="", **more):
        """Asks, and holds the answer against the document; `path` may have query and parameters in it."""
        if method == "POST" and fields is not None:
            answer = d.post(path, fields, headers, **more)
        else:
            answer = d.request(method, path, headers=headers, **more)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return self.check(path, method, answer, kind)

    def check(self, path, method, answer, kind=""):
        route = re.sub(r"/images/[^/]+$", "/images/{n}", re.sub(r"^/jobs/[^/]+", "/jobs/{id}", path.split("?")[0]))
        found = self.document.check_answer(route, method, answer)
        if kind:
            self.assertEqual(found if answer.status < 400 else answer.json()["type"].split(":")[-1], kind)
        self.seen.add((route, method.lower(), str(answer.status)))
        return answer

    def both(self, *arguments, **more):
        for path in ("/generate", "/v1/generate"):
            self.ask(arguments[0], "POST", path, *arguments[1:], **more)

    def success(self):
        """What comes when nothing is wrong; and GETs before and after there is something to tell."""
        gets = [path for path, method, _ in self.document.operations() if method == "get" and "{" not in path]
        with Daemon(wait=False, latency_objective_s=1000) as d:
            for path in gets:
                if path != "/readyz":  # may be either
                    self.ask(d, "GET", path, 200)
            wait_until(lambda: d.get("/readyz").status == 200, "ready")
            self.ask(d, "POST", "/v1/estimate", 200, SMALL)
            self.ask(d, "POST", "/v1/estimate", 200, {**SMALL, "pruning": "auto"})
            answer = self.ask(d, "POST", "/generate", 200,
                              {**SMALL, "prompt": "word " * 100, "pruning": {"flops_budget": 0.98}})
            self.assertTrue(answer.json()["warnings"])
            self.both(d, 200, {**SMALL, "num_images": 2, "pruning": "auto"}, kind="application/json")
            self.both(d, 200, {**SMALL, "pruning": "off"}, {"Accept": "image/png"}, "image/png")
            self.both(d, 200, {**SMALL, "prompt": "word " * 100, "response_format": "png"}, kind="image/png")
            answer = self.ask(d, "POST", "/generate", 200, {**SMALL, "response_format": "url"})
            image = self.ask(d, "GET", answer.json()["images"][0]["url"], 200, kind="image/png")
            read_png(image.body)
            self.ask(d, "POST", "/v1/estimate", 200, SMALL)
            for path in gets:
                self.ask(d, "GET", path, 200)
                head = d.request("HEAD", path)
                self.assertEqual((head.status, head.body), (200, b""))

    def jobs(self):
        with Daemon(max_active=1) as d:
            self.both(d, 202, SMALL, ASYNC)
            done = self.ask(d, "POST", "/generate", 202, SMALL, {**ASYNC, "Idempotency-Key": "k"}).headers["Location"]
            wait_until(lambda: d.get(done).json()["state"] == "done", "done")
            self.ask(d, "GET", done, 200)
            ended = self.ask(d, "POST", "/generate", 202, SMALL, {**ASYNC, "Idempotency-Key": "k"})
            self.assertEqual(ended.json()["state"], "done")
            again = self.ask(d, "POST", "/generate", 200, SMALL, {"Idempotency-Key": "k"})
            read_png(images_of(again)[0])
            self.both(d, 409, OFF, {"Idempotency-Key": "k"}, "idempotency-conflict")
            self.both(d, 400, OFF, {"Idempotency-Key": "a b"}, "query")
            running = self.ask(d, "POST", "/generate", 202, LONG, ASYNC).headers["Location"]
            waiting = self.ask(d, "POST", "/generate", 202, LONG, ASYNC).headers["Location"]
            wait_until(lambda: d.get(running).json().get("progress", {}).get("images_per_s"), "progress")
            for path, state in ((running, "running"), (waiting, "queued"), (done, "done")):
                self.assertEqual(self.ask(d, "GET", path, 200).json()["state"], state)
                self.assertEqual(self.ask(d, "GET", f"/jobs?state={state}&limit=1000", 200).json()["jobs"][0]["state"], state)
            self.ask(d, "GET", waiting + "/images/0", 404)
            streams = [self.later(d, path + "/events") for path in (running, waiting)]
            time.sleep(0.3)  # some steps
            held = self.later(d, "/generate", LONG, {"Idempotency-Key": "held"})
            held_id = wait_until(lambda: self.newest(d, {running, waiting, done}), "it is a job")
            self.ask(d, "DELETE", "/jobs/" + held_id, 200)
            self.check("/generate", "POST", held(), "canceled")
            self.check("/v1/generate", "POST", d.post("/v1/generate", LONG, {"Idempotency-Key": "held"}), "canceled")
            for path in (waiting, running):
                self.assertEqual(self.ask(d, "DELETE", path, 200).json()["state"], "canceled")
                self.ask(d, "GET", path, 200)
            self.assertIn("canceled", {job["state"] for job in self.ask(d, "GET", "/jobs", 200).json()["jobs"]})
            names = set()
            for path, stream in zip((running, waiting), streams):
                names |= self.check_events(path, stream())
            names |= self.check_events(done, d.get(done + "/events"))
            self.assertEqual(names, {"queued", "progress", "done", "error"})
            page = self.ask(d, "GET", "/jobs?limit=1", 200).json()
            while page["next"] is not None:
                page = self.ask(d, "GET", f"/jobs?limit=1&before={page['next']}", 200).json()
            self.ask(d, "DELETE", done, 204)
            for path in ("", "/events", "/images/0"):
                self.ask(d, "GET", done + path, 404, kind="not-found")
            self.ask(d, "DELETE", done, 404, kind="not-found")
            for query in ("state=ready", "limit=0", "limit=1001", "before=-1"):
                self.ask(d, "GET", "/jobs?" + query, 400, kind="query")

    def no_longer_allowed(self):
        """A job that a daemon with a lower limit finds."""
        with tempfile.TemporaryDirectory() as folder:
            store = folder + "/jobs.db"
            with Daemon(job_store=store) as d:
                path = self.ask(d, "POST", "/generate", 202, LONG, {**ASYNC, "Idempotency-Key": "k"}).headers["Location"]
                d.kill()
            with Daemon(job_store=store, max_steps=LONG["steps"] - 1) as d:
                wait_until(lambda: d.get(path).json()["state"] == "failed", "it fails")
                self.assertEqual(self.ask(d, "GET", path, 200).json()["error"]["type"], "urn:atedm:problem:invalid")
                self.assertEqual(self.check_events(path, d.get(path + "/events")), {"error"})
            with Daemon(job_store=store) as d:
                answer = self.ask(d, "POST", "/generate", 422, LONG, {"Idempotency-Key": "k"}, "invalid")
                self.assertNotIn("errors", answer.json())

    def later(self, d, path, fields=None, headers=None):
        """Asks in a thread; call what is returned for the answer."""
        call = (lambda: d.post(path, fields, headers)) if fields else (lambda: d.get(path))
        return Background(call).answer

    def newest(self, d, known):
        job = d.get("/jobs?limit=1").json()["jobs"][0]
        return None if "/jobs/" + job["id"] in known else job["id"]

    def check_events(self, path, answer):
        self.check(path + "/events", "GET", answer)
        schemas = self.document.response("/jobs/{id}/events", "get", 200)["content"]["text/event-stream"]["x-events"]
        events = sse(answer.body)
        for name, data in events:
            self.assertIn(name, schemas)
            self.document.check(schemas[name], data)
        return {name for name, _ in events}

    def refused(self):
        with Daemon(queue_limit=1, max_active=1, max_body_bytes=4096) as d:
            for path in ("/generate", "/v1/generate", "/v1/estimate"):
                self.ask(d, "POST", path, 400, b"{", kind="not-json")
                self.ask(d, "POST", path, 413, b" " * 4097, kind="too-large")
                self.ask(d, "POST", path, 415, SMALL, {"Content-Type": "text/plain"}, kind="media-type")
                self.ask(d, "POST", path, 422, {"prompt": "", "steps": 0, "~/": 1}, kind="invalid")
                self.ask(d, "POST", path, 422, {f"f{i}": 1 for i in range(40)}, kind="invalid")
            self.ask(d, "POST", "/generate", 200, SMALL)  # the 504 needs a measured speed
            self.both(d, 504, {**LONG, "deadline_s": 0.001}, kind="deadline")
            with d.start():
                wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
                with d.start():
                    wait_until(lambda: d.gauge("atedm_queue_depth") == 1, "one waits")
                    self.both(d, 503, SMALL, kind="queue-full")
            for path in ("/nowhere", "/openapi"):
                self.document.check({"$ref": "#/components/schemas/Problem"}, d.get(path).json())

    def full_disk(self):
        with Daemon() as d:
            limit = resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, (4096, limit[1]))
            self.both(d, 503, SMALL, ASYNC, kind="storage")
            resource.prlimit(d.process.pid, resource.RLIMIT_FSIZE, limit)

    def draining(self):
        with Daemon(drain_timeout_s=1) as d:
            kept = d.connection()
            waiting = d.in_background(LONG)
            wait_until(lambda: d.gauge("atedm_active_requests") == 1, "it runs")
            self.ask(d, "GET", "/readyz", 200, connection=kept)
            d.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "signal" in d.log(), "the signal is seen")
            self.ask(d, "GET", "/readyz", 503, kind="draining", connection=kept)
            kept.close()
            self.check("/generate", "POST", waiting.answer(), "draining")
            self.assertEqual(d.process.wait(PATIENCE), 0)

    def keys(self):
        """What is said to be open is open; all else asks for a key, in either header."""
        alice, bob, slow, one = (make_key() for _ in range(4))
        keys = KeyFile(self, entry("alice", alice), entry("bob", bob, disabled=True),
                       entry("slow", slow, requests_per_minute=1, burst=1), entry("one", one, max_queued=1, max_priority=0))
        with Daemon(api_keys=keys) as d:
            closed = 0
            for path, method, operation in document(d).operations():
                here = path.replace("{id}", "0" * 16).replace("{n}", "0")
                fields = SMALL if method == "post" else None
                if operation.get("security") == []:
                    self.ask(d, method.upper(), here, 200, fields)
                    continue
                closed += 1
                self.ask(d, method.upper(), here, 401, fields, kind="unauthorized")
                self.ask(d, method.upper(), here, 401, fields, bearer(make_key()), kind="unauthorized")
                self.ask(d, method.upper(), here, 403, fields, bearer(bob), kind="forbidden")
                self.ask(d, method.upper(), here, 404 if "{" in path else 200, fields, {"X-Api-Key": alice})
            self.assertGreater(closed, 10)
            self.both(d, 403, {**SMALL, "priority": 1}, bearer(one), "forbidden")
            self.ask(d, "POST", "/generate", 200, SMALL, bearer(slow))
            self.both(d, 429, SMALL, bearer(slow), "rate")
            running = self.ask(d, "POST", "/generate", 202, LONG, {**ASYNC, **bearer(one)}).headers["Location"]
            self.both(d, 429, SMALL, bearer(one), "quota")
            self.ask(d, "DELETE", running, 200, headers=bearer(one))


if __name__ == "__main__":
    unittest.main()
