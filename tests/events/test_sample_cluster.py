"""The imaginary cluster follows Kubernetes' own naming."""

import random
import re

from forwarder.events.sample_cluster import HASH_ALPHABET, SUFFIX_ALPHABET, Cluster


def test_pods_are_named_as_their_controllers_name_them():
    """A service name can be found again only where hashes and suffixes have the alphabets that Kubernetes uses."""
    shapes = {
        "Deployment": rf"-[{HASH_ALPHABET}]{{9,10}}-[{SUFFIX_ALPHABET}]{{5}}",
        "StatefulSet": r"-\d",
        "DaemonSet": rf"-[{SUFFIX_ALPHABET}]{{5}}",
        "CronJob": rf"-\d{{8}}-[{SUFFIX_ALPHABET}]{{5}}",
    }
    workloads = Cluster(random.Random(1)).workloads
    assert {workload.kind for workload in workloads} == set(shapes)
    for workload in workloads:
        for pod in workload.pods:
            assert re.fullmatch(re.escape(workload.name) + shapes[workload.kind], pod)


def test_a_pods_owner_is_its_controller():
    """ownerReferences name the ReplicaSet, the Job or the set itself."""
    cluster = Cluster(random.Random(1))
    for workload in cluster.workloads:
        pod = cluster.pod(workload, workload.pods[0])
        (owner,) = pod["metadata"]["ownerReferences"]
        expected = {"Deployment": "ReplicaSet", "CronJob": "Job"}.get(workload.kind, workload.kind)
        assert owner["kind"] == expected
        assert pod["metadata"]["name"].startswith(owner["name"])


def test_managed_fields_mirror_the_object():
    """Half of a real object's bytes are managedFields: every key of the spec is there as `f:key`."""
    cluster = Cluster(random.Random(1))
    deployment = cluster.controller(cluster.workloads[0])
    (entry,) = deployment["metadata"]["managedFields"]
    assert set(entry["fieldsV1"]["f:spec"]) == {f"f:{key}" for key in deployment["spec"]}


def test_uids_are_version_4_uuids():
    """As the API server draws them."""
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", Cluster(random.Random(1)).uid()
    )
