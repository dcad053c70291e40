"""``modelyard deploy --kuberay``: a RayService that KubeRay and Ray Serve accept, and what it has of the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from modelyard.cli import app
from modelyard.cli.exit_codes import USAGE
from modelyard.cluster.kuberay import CLOSE_S
from modelyard.config.cluster import Cluster

# The fields of a RayService that a manifest may have, with their types, as KubeRay's schema has them.
# Source: KubeRay, helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml, as of 2026-08.
TEXTS = {"*": str}
POD = {
    "spec": {
        "containers": [
            {
                "name": str,
                "image": str,
                "ports": [{"name": str, "containerPort": int}],
                "resources": {"requests": TEXTS, "limits": TEXTS},
                "env": [{"name": str, "value": str}],
                "envFrom": [{"secretRef": {"name": str, "optional": bool}}],
                "volumeMounts": [{"name": str, "mountPath": str}],
            }
        ],
        "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str}, "emptyDir": {}}],
        "terminationGracePeriodSeconds": int,
    }
}
RAY_SERVICE = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {
        "serveConfigV2": str,
        "rayClusterDeletionDelaySeconds": int,
        "rayClusterConfig": {
            "rayVersion": str,
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"version": str, "idleTimeoutSeconds": int},
            "headGroupSpec": {"rayStartParams": TEXTS, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": int,
                    "minReplicas": int,
                    "maxReplicas": int,
                    "labels": TEXTS,
                    "rayStartParams": TEXTS,
                    "template": POD,
                }
            ],
        },
    },
}

TOML = """
[server]
api_keys = ["${MY_KEY}"]
[cluster]
min_nodes = 3
max_nodes = 5
drain_seconds = "2m"
replicas = { small = 2 }
labels = { big = { accelerator = "h200" } }
[[models]]
model_id = "Qwen/Qwen3-0.6B"
alias = "small"
[[models]]
model_id = "Qwen/Qwen3-32B"
alias = "big"
"""


def run(folder: Path, *args: str, toml: str = TOML) -> Result:
    (folder / "models.toml").write_text(toml)
    arguments = ["deploy", str(folder / "models.toml"), "--kuberay", "--image", "modelyard-ray:1", *args]
    return CliRunner().invoke(app, arguments, env={"MY_KEY": "sk-a-key-that-nobody-may-see"})


def written(folder: Path, *args: str, toml: str = TOML) -> dict[str, Any]:
    done = run(folder, *args, toml=toml)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def check(value: Any, shape: Any, where: str = "") -> None:
    """Require that a value has the shape, and no field besides."""
    match shape:
        case {"*": each}:
            for key, item in value.items():
                check(item, each, f"{where}.{key}")
        case dict():
            for key, item in value.items():
                assert key in shape, f"{where}.{key}"
                check(item, shape[key], f"{where}.{key}")
        case [each]:
            for item in value:
                check(item, each, where)
        case _:
            assert type(value) is shape, where


def test_it_has_fields_that_a_ray_service_has(tmp_path: Path) -> None:
    found = written(tmp_path)
    check(found, RAY_SERVICE)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayService")


def test_serve_accepts_its_configuration_of_the_application(tmp_path: Path) -> None:
    schema = pytest.importorskip("ray.serve.schema")
    application = pytest.importorskip("modelyard.cluster.application")
    serve = yaml.safe_load(written(tmp_path)["spec"]["serveConfigV2"])
    (found,) = schema.ServeDeploySchema(**serve).applications
    assert found.import_path == f"{application.declared.__module__}:{application.declared.__name__}"
    counts = Cluster(**found.args["cluster"])
    assert (counts.min_nodes, counts.max_nodes, counts.drain_seconds) == (3, 5, 120.0)
    assert {each.name for each in found.deployments} == {"directory", "node", "front"}
    settings = found.deployments[0].user_config
    assert application.config_of({**settings, "tables": {**settings["tables"], "server": {}}}).cluster.max_nodes == 5


def test_changed_models_leave_the_arguments_as_they_are_so_that_no_actor_is_replaced(tmp_path: Path) -> None:
    def arguments(toml: str) -> Any:
        serve = json.loads(written(tmp_path, toml=toml)["spec"]["serveConfigV2"])
        return serve["applications"][0]["args"]

    before = arguments(TOML)
    assert arguments(TOML.replace("Qwen3-32B", "Qwen3-14B").replace("small = 2", "small = 1")) == before
    assert arguments(TOML.replace("max_nodes = 5", "max_nodes = 6")) != before


def test_there_is_a_group_of_nodes_for_each_set_of_labels(tmp_path: Path) -> None:
    groups = written(tmp_path)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert [(group["minReplicas"], group["maxReplicas"], group.get("labels")) for group in groups] == [
        (2, 5, None),
        (1, 5, {"accelerator": "h200"}),
    ]


def test_nodes_that_come_with_the_first_request_are_none_at_first(tmp_path: Path) -> None:
    groups = written(tmp_path, toml=TOML.replace("min_nodes = 3", "min_nodes = 0"))["spec"]["rayClusterConfig"]
    assert [group["minReplicas"] for group in groups["workerGroupSpecs"]] == [0, 0]


def test_pods_have_longer_to_end_than_requests_have(tmp_path: Path) -> None:
    spec = written(tmp_path)["spec"]
    pods = [spec["rayClusterConfig"]["headGroupSpec"], *spec["rayClusterConfig"]["workerGroupSpecs"]]
    graces = [pod["template"]["spec"]["terminationGracePeriodSeconds"] for pod in pods]
    assert {*graces, spec["rayClusterDeletionDelaySeconds"]} == {120 + CLOSE_S}


def test_nodes_have_the_memory_and_the_gpus_that_are_asked_for(tmp_path: Path) -> None:
    cluster = written(tmp_path, "--node-memory", "64GiB", "--node-gpus", "2", "--node-cpus", "8")["spec"]
    container = cluster["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    expected = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"requests": expected, "limits": expected}


def test_as_many_nodes_as_there_are_always_need_no_autoscaler(tmp_path: Path) -> None:
    cluster = written(tmp_path, toml=TOML.replace("max_nodes = 5", "max_nodes = 3"))["spec"]["rayClusterConfig"]
    assert "enableInTreeAutoscaling" not in cluster


def test_keys_are_of_a_secret_and_never_in_the_manifest(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert "${MY_KEY}" in done.stdout
    assert "sk-a-key-that-nobody-may-see" not in done.stdout
    refused = run(tmp_path, toml=TOML.replace("${MY_KEY}", "sk-a-key-in-the-file"))
    assert (refused.exit_code, "sk-a-key" in refused.output) == (USAGE, False)
    assert "has an API key" in refused.output


def test_without_an_image_or_with_a_wrong_size_it_says_what_to_write(tmp_path: Path) -> None:
    assert "--node-memory 'much' is not a size" in run(tmp_path, "--node-memory", "much").output
    done = CliRunner().invoke(app, ["deploy", str(tmp_path / "models.toml"), "--kuberay"], env={"MY_KEY": "sk-1234567"})
    assert (done.exit_code, "--image REGISTRY/NAME:TAG" in done.output) == (USAGE, True)
