#!/usr/bin/env python3
"""Tests deploy/kubernetes without a cluster: the objects are valid for the API, and agree with each other, with the image and with
the daemon. deploy/kubernetes/try.sh runs a pod."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

from kubernetes_models import KINDS, find_errors

SOURCE = pathlib.Path(os.environ["ATEDM_SOURCE_DIR"])
FOLDER = SOURCE / "deploy/kubernetes"
DEFAULTS = json.loads((SOURCE / "config/atedmd.json").read_text("utf-8"))
UNITS = {"": 1, "Mi": 1 << 20, "Gi": 1 << 30}


def read(path):
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def bytes_of(quantity):
    number, unit = re.fullmatch(r"(\d+)(.*)", quantity).groups()
    return int(number) * UNITS[unit]


def has_kustomize():
    """Whether kubectl has a kustomize that supports components and patches by path. Debian 12's kubectl has not."""
    if not shutil.which("kubectl"):
        return False
    text = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"Kustomize Version: v(\d+)", text)
    return bool(version) and int(version.group(1)) >= 4


def render(folder):
    text = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def object_of(documents, kind):
    found, = (document for document in documents if document["kind"] == kind)
    return found


class Objects(unittest.TestCase):
    def check(self, documents, whole=True):
        for document in documents:
            if document["kind"] in KINDS:
                kind = KINDS[document["kind"]].__name__
                self.assertEqual(list(find_errors(document, kind, document["kind"], whole)), [])

    def test_base(self):
        documents = [document for path in sorted((FOLDER / "base").glob("*.yaml")) for document in read(path)]
        kinds = sorted(document["kind"] for document in documents)
        self.assertEqual(kinds, ["Kustomization", "NetworkPolicy", "Service", "StatefulSet"])
        self.check(documents)

    def test_additions(self):
        for path in sorted(FOLDER.glob("*/*.yaml")):
            documents = read(path)
            if path.parent.name != "base" and documents[0]["kind"] != "Kustomization":
                self.check(documents, whole=path.name != "statefulset.yaml")

    def test_mistakes_are_found(self):
        pod = {"apiVersion": "v1", "kind": "Pod",
               "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}
        self.assertEqual(list(find_errors(pod, "V1Pod")), [])
        mistakes = ((("containers", []), 0), (("container", []), 1), (("hostNetwork", "yes"), 1),
                    (("containers", [{}]), 1), (("containers", [{"name": "a", "ports": [{}]}]), 1),
                    (("containers", [{"name": "a", "resources": {"limits": {"cpu": True}}}]), 1),
                    (("terminationGracePeriodSeconds", True), 1))
        for (name, value), count in mistakes:
            spec = {**pod["spec"], name: value}
            self.assertEqual(len(list(find_errors({**pod, "spec": spec}, "V1Pod"))), count, (name, value))

    def test_kustomizations_name_files_that_there_are(self):
        for path in FOLDER.glob("*/kustomization.yaml"):
            content, = read(path)
            names = content.get("resources", []) + [patch["path"] for patch in content.get("patches", [])]
            names += [name for generator in content.get("configMapGenerator", []) for name in generator["files"]]
            self.assertGreater(len(names), 0)
            for name in names:
                self.assertTrue((path.parent / name).exists(), f"{path}: {name}")


class Pod(unittest.TestCase):
    """The pod of the base."""

    @classmethod
    def setUpClass(cls):
        cls.set, = read(FOLDER / "base/statefulset.yaml")
        cls.service, = read(FOLDER / "base/service.yaml")
        cls.policy, = read(FOLDER / "base/networkpolicy.yaml")
        cls.spec = cls.set["spec"]["template"]["spec"]
        cls.container, = cls.spec["containers"]
        cls.config = json.loads((FOLDER / "base/atedmd.json").read_text("utf-8"))
        cls.image = (SOURCE / "deploy/docker/Dockerfile.cpu").read_text("utf-8")

    def test_who_is_meant(self):
        labels = self.set["spec"]["template"]["metadata"]["labels"]
        for selector in (self.set["spec"]["selector"]["matchLabels"], self.service["spec"]["selector"],
                         self.policy["spec"]["podSelector"]["matchLabels"]):
            self.assertEqual(selector, labels)
        self.assertEqual(self.set["spec"]["serviceName"], self.service["metadata"]["name"])

    def test_ports(self):
        port, = self.container["ports"]
        self.assertIn(f"ATEDM_LISTEN=:{port['containerPort']} ", self.image)
        served, = self.service["spec"]["ports"]
        self.assertEqual((served["port"], served["targetPort"]), (port["containerPort"], port["name"]))
        for rule in self.policy["spec"]["ingress"]:
            self.assertEqual(rule["ports"], [{"port": port["name"]}])
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(self.container[name]["httpGet"]["port"], port["name"])

    def test_volumes(self):
        given = {volume["name"] for volume in self.spec["volumes"] + [
            {"name": claim["metadata"]["name"]} for claim in self.set["spec"]["volumeClaimTemplates"]]}
        self.assertEqual({mount["name"] for mount in self.container["volumeMounts"]}, given)
        places = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.assertIn(f"VOLUME {places['jobs']}\n", self.image)
        self.assertEqual(self.container["args"], ["--config", places["config"] + "/atedmd.json"])

    def test_user(self):
        user = self.spec["securityContext"]
        self.assertIn(f"USER {user['runAsUser']}:{user['runAsGroup']}\n", self.image)
        self.assertEqual(user["fsGroup"], user["runAsGroup"])

    def test_limits_fit_the_daemon_s(self):
        sleep = int(self.container["lifecycle"]["preStop"]["exec"]["command"][1])
        self.assertGreater(self.spec["terminationGracePeriodSeconds"], DEFAULTS["drain_timeout_s"] + sleep)
        claim, = self.set["spec"]["volumeClaimTemplates"]
        self.assertGreater(bytes_of(claim["spec"]["resources"]["requests"]["storage"]),
                           2 * self.config["job_retention_bytes"])

    def test_configurations(self):
        for path in FOLDER.glob("*/atedmd.json"):
            with tempfile.TemporaryDirectory() as state:
                # The daemon accepts the configuration, and ends because the model does not exist.
                result = subprocess.run([os.environ["ATEDMD"], "--config", str(path), "--backend", "ref", "--model",
                                         state + "/none", "--listen", "127.0.0.1:0", "--job-store", state + "/jobs.db"],
                                        capture_output=True, text=True, check=False, timeout=60)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn(state + "/none", result.stderr)


class Rules(unittest.TestCase):
    def test_the_operator_gets_what_the_files_say(self):
        text = subprocess.run([FOLDER / "monitoring/rules.sh"], capture_output=True, text=True, check=True).stdout
        files = sorted((SOURCE / "deploy/prometheus/rules").glob("*.yml"))
        rules = list(yaml.safe_load_all(text))
        self.assertEqual([rule["spec"] for rule in rules], [read(path)[0] for path in files])
        self.assertEqual([rule["metadata"]["name"] for rule in rules], [f"atedmd-{path.stem}" for path in files])

    def test_what_is_scraped(self):
        monitor, = read(FOLDER / "monitoring/servicemonitor.yaml")
        service, = read(FOLDER / "base/service.yaml")
        self.assertEqual(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
        endpoint, = monitor["spec"]["endpoints"]
        self.assertIn(endpoint["port"], [port["name"] for port in service["spec"]["ports"]])
        # Rules and dashboard select this name of the job.
        config, = read(SOURCE / "deploy/prometheus/prometheus.yml")
        self.assertIn(service["metadata"]["labels"][monitor["spec"]["jobLabel"]],
                      [job["job_name"] for job in config["scrape_configs"]])


@unittest.skipUnless(has_kustomize(), "no kubectl with kustomize 4 or later")
class Rendered(Objects):
    def test_base(self):
        self.check(render(FOLDER / "base"))

    def test_additions(self):
        with tempfile.TemporaryDirectory(dir=FOLDER) as own:
            for base in ("base", "gpu"):
                pathlib.Path(own, "kustomization.yaml").write_text(
                    f"resources: [../{base}]\ncomponents: [../keys, ../monitoring]\n", "utf-8")
                documents = render(own)
                self.check(documents)
                spec = object_of(documents, "StatefulSet")["spec"]["template"]["spec"]
                container, = spec["containers"]
                mounts = {mount["name"] for mount in container["volumeMounts"]}
                self.assertEqual(mounts, {volume["name"] for volume in spec["volumes"]} | {"jobs"})
                self.assertEqual("model" in mounts, base == "gpu")
                self.assertIn("ATEDM_API_KEYS", [variable["name"] for variable in container["env"]])
                self.assertEqual(container["image"], {"base": "atedmd:cpu", "gpu": "atedmd:cuda"}[base])
                self.assertEqual("nvidia.com/gpu" in container["resources"]["limits"], base == "gpu")
                config = next(volume for volume in spec["volumes"] if volume["name"] == "config")
                self.assertEqual(config["configMap"]["name"], object_of(documents, "ConfigMap")["metadata"]["name"])


if __name__ == "__main__":
    unittest.main()
