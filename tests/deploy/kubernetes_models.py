"""Checks Kubernetes' objects strictly against the API's models in Debian's python3-kubernetes: an unknown field is an error, and
so is a required field that is missing, or a value of the wrong type."""
import re

from kubernetes import client

KINDS = {"ConfigMap": client.V1ConfigMap, "NetworkPolicy": client.V1NetworkPolicy,
         "PersistentVolumeClaim": client.V1PersistentVolumeClaim, "Pod": client.V1Pod, "Secret": client.V1Secret,
         "Service": client.V1Service, "StatefulSet": client.V1StatefulSet}
PLAIN = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float), "object": (str, int)}


def find_errors(value, kind, at="", whole=True):
    """Yields the errors of `value` as a `kind`, which is the name of a model or of a type. If it is not `whole`, as a patch,
    required fields may be missing."""
    listed = re.fullmatch(r"list\[(.*)\]", kind)
    mapped = re.fullmatch(r"dict\(str, (.*)\)", kind)
    if value is None and not whole:
        return
    if listed or mapped:
        if not isinstance(value, list if listed else dict):
            yield f"{at}: {value!r} is no {kind}"
            return
        for key, item in enumerate(value) if listed else value.items():
            yield from find_errors(item, (listed or mapped).group(1), f"{at}/{key}", whole)
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "bool"):
            yield f"{at}: {value!r} is no {kind}"
    elif not isinstance(value, dict):
        yield f"{at}: {value!r} is no {kind}"
    else:
        yield from find_errors_of_object(value, getattr(client, kind), at, whole)


def find_errors_of_object(value, model, at, whole):
    names = {json_name: name for name, json_name in model.attribute_map.items()}
    for json_name, item in value.items():
        if json_name not in names:
            yield f"{at}/{json_name}: {model.__name__} has no such field"
        else:
            yield from find_errors(item, model.openapi_types[names[json_name]], f"{at}/{json_name}", whole)
    if whole:
        try:  # the model's constructor checks that required fields are there
            model(**{names[name]: item for name, item in value.items() if name in names})
        except ValueError as error:
            yield f"{at}: {error}"
