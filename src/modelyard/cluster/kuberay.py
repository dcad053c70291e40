"""A RayService of KubeRay that serves a configuration: the manifest, as plain values. Pure.

Serve's configuration in it has what the models are in ``user_config``, which a changed manifest passes to the actors
that run. Only changed arguments of the application, here the counts of nodes, have them replaced one after another.

Source: KubeRay, ray-operator/apis/ray/v1/rayservice_types.go and raycluster_types.go; Ray,
python/ray/serve/_private/deploy_utils.py, get_app_code_version.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from modelyard.config import Config
from modelyard.config.cluster import Cluster

APPLICATION: Final = "modelyard"

IMPORT_PATH: Final = "modelyard.cluster.application:declared"

MODELS: Final = Path("/models")
"""Where nodes find model files: relative paths of the configuration start here, and downloads go below it."""

CACHE: Final = "/cache"
"""Kept prompts, conversions and records of one node."""

KEYS: Final = "modelyard-keys"
"""The Secret whose entries are environment variables."""

CLAIM: Final = "modelyard-models"
"""The PersistentVolumeClaim of ``MODELS``."""

CLOSE_S: Final = 60.0
"""Seconds that a pod may take to end once its requests are over."""

OBJECTS_BYTES: Final = 100 << 20
"""Memory of Ray's object store, which is not used here. Ray would take a third of the pod's."""


@dataclass(frozen=True, slots=True)
class Pods:
    """What the pods are made of.

    Attributes:
        image: has Ray and Modelyard.
        ray_version: that of Ray in the image.
        port: where the front listens, on the head.
        cpus, memory_bytes, gpus: of the pod of a node.
    """

    image: str
    ray_version: str
    port: int
    cpus: int
    memory_bytes: int
    gpus: int = 0


class LiteralKey(ValueError):
    """An API key is written in the configuration, and everybody who may read the manifest would read it."""


def manifest(config: Config, tables: Mapping[str, Any], source: str, pods: Pods) -> dict[str, Any]:
    """Return the RayService.

    Args:
        config: the configuration.
        tables: those of its file. References to environment variables stay: the pods have them of a Secret.
        source: the name of the file, for errors.
        pods: what the pods are made of.

    Raises:
        LiteralKey: an API key is written in the file.
    """
    _check_keys(tables)
    cluster = config.cluster
    grace_s = math.ceil(cluster.drain_seconds + CLOSE_S)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": APPLICATION},
        "spec": {
            "serveConfigV2": json.dumps(serve_config(cluster, tables, source, pods.port), indent=2) + "\n",
            # Streams of a cluster that another one takes the place of go on that long.
            "rayClusterDeletionDelaySeconds": grace_s,
            "rayClusterConfig": {
                "rayVersion": pods.ray_version,
                **_autoscaling(cluster),
                "headGroupSpec": _head(pods, grace_s),
                "workerGroupSpecs": _groups(config, pods, grace_s),
            },
        },
    }


def serve_config(cluster: Cluster, tables: Mapping[str, Any], source: str, port: int) -> dict[str, Any]:
    """Return the configuration of Ray Serve.

    Args:
        cluster: how many nodes there are.
        tables, source: see ``manifest``.
        port: where the front listens.
    """
    counts = cluster.model_dump(mode="json", exclude={"replicas", "labels"})
    served = {"tables": dict(tables), "source": source, "base": str(MODELS), "listen": ["0.0.0.0", port]}
    return {
        # Only the head takes connections: a stream must not end with the node that computes it.
        "proxy_location": "HeadOnly",
        "http_options": {"host": "0.0.0.0", "port": proxy_port(port)},
        "applications": [
            {
                "name": APPLICATION,
                "import_path": IMPORT_PATH,
                "route_prefix": "/",
                "args": {"cluster": counts},
                "deployments": [{"name": name, "user_config": served} for name in ("directory", "node", "front")],
            }
        ],
    }


def proxy_port(port: int) -> int:
    """Return the port of Serve's proxy, which KubeRay asks whether Serve is healthy."""
    return 8001 if port != 8001 else 8000


def _check_keys(tables: Mapping[str, Any]) -> None:
    server = tables.get("server", {})
    written = [*server.get("api_keys", ()), *(key["key"] for key in server.get("keys", ()) if "key" in key)]
    if any("${" not in key for key in written):
        raise LiteralKey(
            "[server] has an API key, which the manifest would show. Write ${NAME} in its place, and put NAME into the "
            f"Secret {KEYS}."
        )


def _autoscaling(cluster: Cluster) -> dict[str, Any]:
    if cluster.max_nodes == cluster.min_nodes:
        return {}
    return {"enableInTreeAutoscaling": True, "autoscalerOptions": {"version": "v2", "idleTimeoutSeconds": 60}}


def _head(pods: Pods, grace_s: int) -> dict[str, Any]:
    resources = {"cpu": "2", "memory": "4Gi"}
    ports = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": proxy_port(pods.port), "http": pods.port}
    container = {
        **_container("ray-head", pods, resources),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
    }
    # Without processors for Ray, so that no node is put beside the front.
    return {"rayStartParams": {**_start(), "num-cpus": "0"}, "template": _pod(container, grace_s)}


def _groups(config: Config, pods: Pods, grace_s: int) -> list[dict[str, Any]]:
    """Return a group of pods for each set of labels that models ask for."""
    cluster = config.cluster
    local = [model.id for model in config.models if not model.is_remote]
    wanted = list(dict.fromkeys(tuple(sorted(cluster.labels_of(model).items())) for model in local)) or [()]
    resources = {"cpu": str(pods.cpus), "memory": _quantity(pods.memory_bytes)}
    if pods.gpus:
        resources["nvidia.com/gpu"] = str(pods.gpus)
    groups = []
    for number, labels in enumerate(wanted):
        # The first group has the nodes that the others do not need.
        at_least = max(0, cluster.min_nodes - len(wanted) + 1) if number == 0 else min(1, cluster.min_nodes)
        groups.append(
            {
                "groupName": "nodes" if number == 0 else f"nodes-{number + 1}",
                "replicas": at_least,
                "minReplicas": at_least,
                "maxReplicas": max(cluster.max_nodes, 1),
                **({"labels": dict(labels)} if labels else {}),
                "rayStartParams": _start(),
                "template": _pod(_container("ray-node", pods, resources), grace_s),
            }
        )
    return groups


def _start() -> dict[str, str]:
    return {"object-store-memory": str(OBJECTS_BYTES)}


def _container(name: str, pods: Pods, resources: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": pods.image,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "env": [
            {"name": "HF_HOME", "value": f"{MODELS}/huggingface"},
            {"name": "XDG_CACHE_HOME", "value": CACHE},
        ],
        "envFrom": [{"secretRef": {"name": KEYS, "optional": True}}],
        "volumeMounts": [{"name": "models", "mountPath": str(MODELS)}, {"name": "cache", "mountPath": CACHE}],
    }


def _pod(container: Mapping[str, Any], grace_s: int) -> dict[str, Any]:
    volumes = [
        {"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}},
        {"name": "cache", "emptyDir": {}},
    ]
    return {
        "spec": {"containers": [dict(container)], "volumes": volumes, "terminationGracePeriodSeconds": grace_s},
    }


def _quantity(size_bytes: int) -> str:
    """Return an amount of memory as Kubernetes reads it."""
    return f"{size_bytes >> 30}Gi" if size_bytes % (1 << 30) == 0 else f"{math.ceil(size_bytes / (1 << 20))}Mi"
