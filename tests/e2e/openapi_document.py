"""The document of GET /openapi.json, for tests: its form, and what it says of requests and answers, with Debian's
python3-jsonschema as the judge of schemas."""
import json

from jsonschema import Draft202012Validator

METHODS = ("get", "post", "delete")


def parse(text):
    """JSON in which no key is there twice."""
    def unique(pairs):
        assert len(dict(pairs)) == len(pairs), f"a key twice: {[key for key, _ in pairs]}"
        return dict(pairs)
    return json.loads(text, object_pairs_hook=unique)


def pointer(path):
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def leaves(error):
    """JSON pointers of what is wrong, as the daemon has them: of alternatives, that of the right type."""
    path = list(error.absolute_path)
    if error.validator in ("oneOf", "anyOf") and error.context:
        branches = {}
        for inner in error.context:
            branches.setdefault(inner.schema_path[0], []).append(inner)
        fitting = [errors for errors in branches.values()
                   if not any(e.validator == "type" and not e.path for e in errors)]
        if fitting:
            return [p for errors in fitting for e in errors for p in leaves(e)]
    if error.validator == "required":
        return [pointer(path + [name]) for name in error.validator_value if name not in error.instance]
    if error.validator == "additionalProperties":
        return [pointer(path + [name]) for name in error.instance if name not in error.schema["properties"]]
    return [pointer(path)]


class Document:
    def __init__(self, text):
        self.value = parse(text)
        self.schemas = self.value["components"]["schemas"]

    def resolve(self, value):
        """What a Reference Object stands for."""
        while "$ref" in value:
            assert value["$ref"].startswith("#/"), value
            value = self.follow(value["$ref"])
        return value

    def follow(self, ref):
        found = self.value
        for part in ref[2:].split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def validator(self, schema):
        return Draft202012Validator({"allOf": [schema], "components": self.value["components"]})

    def pointers(self, schema, instance):
        """Of what is wrong with it, each once."""
        errors = self.validator(schema).iter_errors(instance)
        return sorted({p for error in errors for p in leaves(error)})

    def wrong_in_body(self, body):
        return self.pointers({"$ref": "#/components/schemas/GenerateRequest"}, body)

    def operations(self):
        """(path, method, operation) of all."""
        return [(path, method, item[method]) for path, item in self.value["paths"].items()
                for method in METHODS if method in item]

    def response(self, path, method, status):
        responses = self.value["paths"][path][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {path}: {status} is not in the document"
        return self.resolve(responses[str(status)])

    def check(self, schema, instance):
        for error in self.validator(schema).iter_errors(instance):
            raise AssertionError(f"{pointer(error.absolute_path)}: {error.message}\n{instance}")

    def check_headers(self, response, answer):
        for name, header in response.get("headers", {}).items():
            header = self.resolve(header)
            value = answer.headers[name]
            assert value is not None or not header.get("required"), f"no header {name}"
            if value is not None:
                schema = self.resolve(header["schema"])
                self.check(schema, int(value) if schema.get("type") == "integer" else value)

    def check_answer(self, path, method, answer):
        """A daemon's real answer is one that the document knows. Returns the content's media type."""
        response = self.response(path, method, answer.status)
        self.check_headers(response, answer)
        content = response.get("content")
        if not content:
            assert not answer.body and "Content-Type" not in answer.headers, answer.body
            return None
        kind = answer.headers["Content-Type"].split(";")[0]
        assert kind in content, f"{method} {path}: {kind} is not in the document"
        if kind.endswith("json"):
            self.check(content[kind]["schema"], answer.json())
        if kind == "application/problem+json":
            assert answer.json()["status"] == answer.status
        return kind


def document(d):
    answer = d.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    return Document(answer.body)


# ---- the form of a document: OpenAPI 3.1.0, of which here is what is used. Where a field is not
# named, it is not allowed, so that no misspelt one goes unseen.


def form(required="", optional="", /, **special):
    """A schema of an object with these fields; `special` ones have a schema each."""
    names = {name: {} for name in (required + " " + optional).split()}
    return {"type": "object", "required": required.split(), "properties": {**names, **special},
            "patternProperties": {"^x-": {}}, "additionalProperties": False}


def table(kind, names=".*"):
    return {"type": "object", "additionalProperties": False, "patternProperties": {names: kind}}


def ref(name):
    return {"$ref": "#/$defs/" + name}


def or_reference(name):
    return {"if": {"required": ["$ref"]}, "then": form("$ref"), "else": ref(name)}


TEXT = {"type": "string", "minLength": 1}
FORM = {
    **form("openapi info paths components", "servers tags", openapi={"const": "3.1.0"},
           info=form("title version", "summary", description=TEXT, license=form("name identifier")),
           servers={"type": "array", "items": form("url", "description")},
           tags={"type": "array", "items": form("name", "description")},
           security=ref("security"), paths=table(ref("path"), "^/"),
           components=form(
               securitySchemes=table(ref("scheme")), headers=table(ref("header")), parameters=table(ref("parameter")),
               requestBodies=table(ref("body")), responses=table(ref("response")),
               schemas=table({"$ref": "https://json-schema.org/draft/2020-12/schema"}))),
    "$defs": {
        "security": {"type": "array", "items": table({"const": []})},
        "scheme": {"oneOf": [form("type scheme", "description", type={"const": "http"}),
                             form("type in name", "description", type={"const": "apiKey"})]},
        "path": form(parameters=ref("parameters"), get=ref("operation"), post=ref("operation"),
                     delete=ref("operation")),
        "operation": form("operationId tags summary responses", operationId=TEXT, summary=TEXT, description=TEXT,
                          parameters=ref("parameters"), requestBody=or_reference("body"),
                          security=ref("security"),
                          responses={**table(or_reference("response"), "^[2-5][0-9][0-9]$"), "minProperties": 1}),
        "parameters": {"type": "array", "items": or_reference("parameter")},
        "parameter": {
            **form("name in schema", "example", description=TEXT, required={"type": "boolean"},
                   **{"in": {"enum": ["path", "query", "header"]}}),
            "if": {"properties": {"in": {"const": "path"}}},
            "then": {"required": ["required"], "properties": {"required": {"const": True}}}},
        "header": form("schema", "description required"),
        "body": form("content", "required", content=ref("content")),
        "response": form("description", description=TEXT, headers=table(or_reference("header")),
                         content=ref("content")),
        "content": {**table(form("", "schema examples"), "^[a-z]+/[a-z+-]+$"), "minProperties": 1},
    },
}
