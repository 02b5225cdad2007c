#!/usr/bin/env python3
"""GET /openapi.json is complete and true: it is OpenAPI 3.1, has every route, field and kind of problem of the sources
and none more, refuses the bodies that the daemon refuses, and follows options and reloads. Answers: see
api_openapi_answers.py."""
import copy
import pathlib
import re
import types
import unittest

from jsonschema import Draft202012Validator

from daemon import SMALL, Daemon, enter_class, images_of
from key_file import JsonFile, KeyFile, entry, make_key, reload
from openapi_bodies import BEYOND, GOOD, WRONG, edges
from openapi_document import FORM, document, parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = ROOT / "server/openapi.json"


def source(path):
    return (ROOT / path).read_text(encoding="utf-8")


def walk(value, where=""):
    """Every object in a JSON value, with its place."""
    if isinstance(value, dict):
        yield where, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from walk(item, f"{where}/{key}")


def difference(left, right, where=""):
    """Where two JSON values differ first: (place, left value, right value); None where they do not."""
    if type(left) is not type(right) or not isinstance(left, (dict, list)):
        return None if (type(left), left) == (type(right), right) else (where, left, right)
    if isinstance(left, list):
        left, right = dict(enumerate(left)), dict(enumerate(right))
    for key in [*left, *(key for key in right if key not in left)]:
        place = f"{where}/{str(key).replace('~', '~0').replace('/', '~1')}"
        if key not in left or key not in right:
            return place, left.get(key, "(nothing)"), right.get(key, "(nothing)")
        found = difference(left[key], right[key], place)
        if found:
            return found
    return None


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
        rows = [(path, dict(re.findall(r"\.(\w+) = (\w+)", rest)))
                for path, rest in re.findall(r'^    \{\.path = "([^"]+)"(.*)\},$', source("server/routes.c"), re.MULTILINE)]
        self.assertGreater(len(rows), 10)
        self.assertEqual(len(rows), source("server/routes.c").count('.path = "'))
        routes = {(path, {"remove": "delete"}.get(method, method)) for path, row in rows for method in row if method != "access"}
        self.assertEqual({(path, method) for path, method, _ in self.document.operations()}, routes)
        opened = {path for path, row in rows if row.get("access") == "ATEDM_ROUTE_OPEN"}
        self.assertEqual({path for path, _, o in self.document.operations() if o.get("security") == []}, opened)

    def test_fields(self):
        schemas = self.document.schemas
        fields = re.findall(r'^    \{\.name = "(\w+)", (?:\.read|INTEGER)', source("server/generate_json.c"), re.MULTILINE)
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
        with Daemon() as d:
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
        found = difference(served, written)
        if found:
            self.fail("{}: served {!r:.500}, written {!r:.500}".format(*found))
        # It sees what differs.
        del served["paths"]["/healthz"]["get"]["tags"][0]
        written["info"]["title"] = "x"
        self.assertEqual(difference({"a": served["paths"]}, {"a": written["paths"]})[0], "/a/~1healthz/get/tags/0")
        self.assertEqual(difference(served["info"], written["info"])[0], "/title")

    def test_head_and_methods(self):
        for method, status in (("HEAD", 200), ("POST", 405), ("DELETE", 405)):
            self.assertEqual(self.d.request(method, "/openapi.json").status, status)
        self.assertEqual(self.d.get("/openapi.json").headers["Cache-Control"], "no-cache")
        wrong = self.d.request("POST", "/openapi.json")
        self.document.check({"$ref": "#/components/schemas/Problem"}, wrong.json())


# ---- requests


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
        with Daemon(max_steps=4) as d:
            self.check_body(d, {}, [])
            steps = d.post("/v1/estimate", {"prompt": "a"}).json()["steps"]
            self.assertEqual(steps, 4)

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


if __name__ == "__main__":
    unittest.main()
