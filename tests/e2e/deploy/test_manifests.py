"""The manifests of deploy/, offline: hardened, complete, and in step with the program and its files."""

import base64
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from forwarder import __version__, pipeline
from forwarder.backend.settings import listen_address
from forwarder.cli import app
from forwarder.cli.configuration import backend_settings
from forwarder.detection.loader import load_rules
from forwarder.registry import Config, ExitsConfig, load_config, load_exits
from forwarder.settings import convert, expand, parse_bytes, parse_document
from forwarder.sidecar.settings import SidecarSettings
from tests.e2e.deploy import test_image
from tests.e2e.deploy.conftest import Objects

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
VARIANTS = ["kubeadm", "k3s", "rke2", "plain"]
PARTS = [*VARIANTS, "components", "sidecar", "tailer"]
OURS = ("friction-forwarder", "friction-backend", "kubernetes-audit-tailer")  # what meets the restricted level
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}
OUTSIDE = {"friction-sidecar", "audittailer-server"}  # Secrets that a person makes; manifests and docs say so


@pytest.fixture(params=PARTS)
def objects(request, parts):
    return parts(request.param)


def containers(objects):
    """(owner, pod spec, container) of every container that is ours."""
    for owner, template in objects.templates():
        spec = template["spec"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if container["name"] != "kube-apiserver":
                yield owner, spec, container


def test_every_container_is_hardened(objects):
    """No privilege to gain, nothing to write to, no capability, the default seccomp profile, bounded memory."""
    seen = 0
    for _, spec, container in containers(objects):
        security = spec.get("securityContext", {}) | container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not security.get("privileged")
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPort" in port for port in container.get("ports", []))
        seen += 1
    assert seen


def test_no_pod_carries_a_token(objects):
    """None of them talks to the API server."""
    for owner, template in objects.templates():
        if owner["metadata"]["name"] == "kube-apiserver":
            continue
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        account = objects.get("ServiceAccount", spec["serviceAccountName"], owner["metadata"]["namespace"])
        assert account["automountServiceAccountToken"] is False


def test_services_run_as_nobody_in_particular(objects):
    """Receiver, backend and tailer: uid 65532, and only volumes that the restricted level allows."""
    for owner, template in objects.templates():
        if owner["metadata"]["name"] in OURS:
            security = template["spec"]["securityContext"]
            assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 65532, 65532)
            kinds = {key for volume in template["spec"]["volumes"] for key in volume if key != "name"}
            assert kinds <= RESTRICTED_VOLUMES


def test_every_reference_exists(objects):
    """ConfigMaps, Secrets and their keys, volumes, ports of probes and Services."""
    for owner, spec, container in containers(objects):
        namespace = owner["metadata"]["namespace"]
        claims = {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates") or []}
        volumes = {volume["name"] for volume in spec["volumes"]} | claims
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        for volume in spec["volumes"]:
            if "configMap" in volume:
                objects.get("ConfigMap", volume["configMap"]["name"], namespace)
            if "secret" in volume and volume["secret"]["secretName"] not in OUTSIDE:
                objects.get("Secret", volume["secret"]["secretName"], namespace)
        for source in container.get("envFrom", []):
            objects.get("ConfigMap", source["configMapRef"]["name"], namespace)
        for variable in container.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in objects.data("Secret", reference["name"], namespace)
        ports = {port["name"] for port in container["ports"]}
        probes = [container[name] for name in ("livenessProbe", "readinessProbe", "startupProbe") if name in container]
        assert probes
        assert {probe["httpGet"]["port"] for probe in probes} <= ports


def test_selectors_find_pods(objects):
    """Services, policies and budgets select pods that are there; Services name ports that those have."""
    pods = [(owner["metadata"]["namespace"], template) for owner, template in objects.templates()]

    def selected(namespace, labels):
        found = [
            template
            for where, template in pods
            if where == namespace and labels.items() <= template["metadata"]["labels"].items()
        ]
        assert found, labels
        return found

    for one in objects.of("Service"):
        for template in selected(one["metadata"]["namespace"], one["spec"]["selector"]):
            ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
    for one in objects.of("PodDisruptionBudget"):
        selected(one["metadata"]["namespace"], one["spec"]["selector"]["matchLabels"])
    for one in objects.of("NetworkPolicy"):
        selected(one["metadata"]["namespace"], one["spec"]["podSelector"]["matchLabels"])
        for rule in [*one["spec"].get("ingress", []), *one["spec"].get("egress", [])]:
            for peer in [*rule.get("from", []), *rule.get("to", [])]:
                labels = peer.get("podSelector", {}).get("matchLabels", {})
                space = peer.get("namespaceSelector", {}).get("matchLabels", {})
                if labels and labels != {"k8s-app": "kube-dns"}:
                    selected(space.get("kubernetes.io/metadata.name", one["metadata"]["namespace"]), labels)
    for owner, template in objects.templates():
        assert owner["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_every_pod_has_a_policy_that_closes_both_directions(objects):
    """What is not named is not reachable; a policy without a direction would leave it open."""
    for owner, template in objects.templates():
        if owner["metadata"]["name"] == "kube-apiserver":
            continue
        policies = [
            policy["spec"]["policyTypes"]
            for policy in objects.of("NetworkPolicy")
            if policy["metadata"]["namespace"] == owner["metadata"]["namespace"]
            and policy["spec"]["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ]
        assert ["Ingress", "Egress"] in policies


def test_images_are_pinned(objects):
    """A version of ours, and the Fluent Bit that the image of the sidecar has in it."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    for _, _, container in containers(objects):
        name, _, tag = container["image"].rpartition(":")
        if name.endswith("fluent-bit"):
            assert f"FLUENT_BIT_IMAGE={name}:{tag}\n" in dockerfile
        else:
            assert name in ("friction-forwarder", "friction-forwarder-sidecar")
            assert tag == __version__


def test_arguments_are_what_the_program_takes(objects):
    """Each container's arguments, and the command of a preStop hook, are parsed by the real command line."""
    commands = get_command(app).commands
    for _, _, container in containers(objects):
        lines = [] if "fluent-bit" in container["image"] else [container["args"]]
        if "lifecycle" in container:
            program, *rest = container["lifecycle"]["preStop"]["exec"]["command"]
            assert program == "forwarder"
            lines.append(rest)
        for name, *rest in lines:
            assert name in commands, name
            commands[name].make_context(name, list(rest))


# --- settings --------------------------------------------------------------------------------------------------------


def settings_document(tmp_path, template):
    """The settings file of the first container, with its paths moved below `tmp_path`."""
    container = template["spec"]["containers"][0]
    path = next(argument for argument in container["args"] if argument.endswith(".yaml"))
    text = (tmp_path / path.lstrip("/")).read_text()
    return parse_document(re.sub(r"(?<=[ \[])/(?=etc/|var/)", f"{tmp_path}/", text), path)


def test_the_receivers_settings_load(parts, unpack, tmp_path):
    """With the very ConfigMaps and Secrets: TLS, key, token, cluster name, own namespace, rules; the volume holds the outbox."""
    objects = parts("kubeadm")
    owner = objects.get("StatefulSet", "friction-forwarder", "friction-forwarder")
    environment = unpack(objects, "friction-forwarder", owner["spec"]["template"])
    loaded = load_config(settings_document(tmp_path, owner["spec"]["template"]), environment)
    forward = loaded.sources["forward"][1]
    assert loaded.config.cluster == "c-1"
    assert loaded.config.detection.own_namespace == "friction-forwarder"
    assert forward.shared_key
    assert forward.tls.client_ca_file
    assert loaded.config.telemetry.token
    assert len(load_rules(loaded.rules).rules) == 5
    backend = objects.get("Service", "friction-backend", "friction-forwarder")
    assert loaded.sinks["backend"][1].url == f"http://friction-backend:{backend['spec']['ports'][0]['port']}"
    (claim,) = owner["spec"]["volumeClaimTemplates"]
    storage = parse_bytes(claim["spec"]["resources"]["requests"]["storage"].replace("Gi", "GiB"))
    assert storage >= 2 * loaded.outbox_max_bytes


def test_the_tailers_settings_load(parts, unpack, tmp_path):
    """Its certificates have the names that audit-forwarder's tailer knew; every event goes to stdout before it is acknowledged."""
    objects = Objects(parts("tailer"))
    secret = {"kind": "Secret", "metadata": {"name": "audittailer-server", "namespace": "kube-system"}, "data": {}}
    for name in ("ca.crt", "audittailer-server.crt", "audittailer-server.key"):
        secret["data"][name] = base64.b64encode(b"pem").decode()
    objects.append(secret)
    template = objects.template("kubernetes-audit-tailer")
    environment = unpack(objects, "kube-system", template)
    loaded = load_config(settings_document(tmp_path, template), environment)
    tls = loaded.sources["forward"][1].tls
    assert {Path(path).name for path in (tls.client_ca_file, tls.cert_file, tls.key_file)} == set(secret["data"])
    assert all(Path(path).is_file() for path in (tls.client_ca_file, tls.cert_file, tls.key_file))
    (sink,) = [settings for _, settings in loaded.sinks.values()]
    assert (sink.stream, sink.when_down) == ("audit", "block")
    assert loaded.rules == []
    volume = next(v for v in template["spec"]["volumes"] if v["name"] == "outbox")
    assert parse_bytes(f"{volume['emptyDir']['sizeLimit']}B") > loaded.outbox_max_bytes


def test_a_sidecar_finds_the_tailer_by_its_defaults(parts):
    """Service, namespace, port and the name that must stand in the certificate."""
    defaults = SidecarSettings()
    service = parts("tailer").get("Service", defaults.service_name, defaults.namespace)
    assert [port["port"] for port in service["spec"]["ports"]] == [24224]
    assert defaults.tls_vhost == service["metadata"]["name"]


def test_agents_receivers_and_backend_agree_on_keys(parts, unpack, tmp_path):
    """The key that an agent shows is the one that receivers ask for; theirs is the backend's."""
    objects = parts("k3s")
    agent = unpack(objects, "friction-forwarder-nodes", objects.template("friction-agent"))
    receiver = objects.template("friction-forwarder")
    environment = unpack(objects, "friction-forwarder", receiver)
    loaded = load_config(settings_document(tmp_path, receiver), environment)
    backend = objects.template("friction-backend")
    environment = unpack(objects, "friction-forwarder", backend)
    document = expand(settings_document(tmp_path, backend), environment)
    settings, _ = backend_settings(document)
    assert agent["FORWARD_SHARED_KEY"] == loaded.sources["forward"][1].shared_key
    assert loaded.sinks["backend"][1].api_key == settings.api_key
    assert listen_address(settings).port == 8000


def test_the_backend_with_postgresql_keeps_only_its_outbox(parts):
    """Its database URL comes from the Secret; what its sinks have yet to take is on a volume as before."""
    owner = parts("components").get("StatefulSet", "friction-backend", "friction-forwarder")
    container = owner["spec"]["template"]["spec"]["containers"][0]
    before = parts("kubeadm").get("StatefulSet", "friction-backend", "friction-forwarder")
    claims = before["spec"]["volumeClaimTemplates"]
    assert [claim["metadata"]["name"] for claim in claims] == ["data", "outbox"]
    assert owner["spec"]["volumeClaimTemplates"] == claims[1:]
    assert "/var/lib/forwarder" not in [mount["mountPath"] for mount in container["volumeMounts"]]
    assert [variable["name"] for variable in container["env"]] == ["FORWARDER_DATABASE"]


def test_the_backends_outbox_has_a_volume_twice_its_size(parts, unpack, tmp_path):
    """SQLite's log and free pages need room of their own; without sinks nothing is opened there."""
    objects = parts("kubeadm")
    owner = objects.get("StatefulSet", "friction-backend", "friction-forwarder")
    environment = unpack(objects, "friction-forwarder", owner["spec"]["template"])
    document = expand(settings_document(tmp_path, owner["spec"]["template"]), environment)
    assert load_exits(document) is None
    outbox = convert(document, ExitsConfig).outbox
    (container,) = owner["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"]: claim["spec"]["resources"]["requests"]["storage"] for claim in owner["spec"]["volumeClaimTemplates"]}  # fmt: skip
    assert Path(outbox.path).parent == Path(f"{tmp_path}{mounts['outbox']}")
    assert parse_bytes(f"{claims['outbox']}B") >= 2 * parse_bytes(outbox.max_bytes)


def test_the_example_of_the_backends_sinks_loads(parts, unpack, tmp_path):
    """Without its `#`: the keys are files of the mounted Secret, and the image has the extra that it needs."""
    objects = parts("components")
    template = objects.template("friction-backend")
    environment = unpack(objects, "friction-forwarder", template)
    path = tmp_path / "etc/forwarder/settings/backend.yaml"
    text = path.read_text()
    assert text.count("sinks: {}\n") == 1
    head, _, rest = text.partition("sinks: {}\n")
    example, _, tail = rest.partition("\n\n")
    assert all(line.startswith("#  ") for line in example.splitlines())
    path.write_text(f"{head}sinks:\n{example.replace('#  ', '  ')}\n\n{tail}")
    loaded = load_exits(expand(settings_document(tmp_path, template), environment))
    ((entry, settings),) = loaded.sinks.values()
    assert entry.component == "SlackSink"
    assert settings.token == "xoxb-of-a-test"
    assert "notify" in test_image.EXTRAS["receiver"]


def test_the_backends_sinks_have_their_keys_and_a_way_out(parts):
    """components/notify: the Secret is mounted where the example reads it, and HTTPS is open."""
    objects = parts("components")
    (container,) = objects.template("friction-backend")["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    example = (ROOT / "deploy/backend/backend.yaml").read_text()
    assert f"{mounts['sinks']}/slack-token" in example
    volume = next(v for v in objects.template("friction-backend")["spec"]["volumes"] if v["name"] == "sinks")
    assert "slack-token" in objects.data("Secret", volume["secret"]["secretName"], "friction-forwarder")
    policy = objects.get("NetworkPolicy", "friction-backend-sinks", "friction-forwarder")["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[443], [53, 53]]


@pytest.mark.parametrize("name", ["friction-forwarder", "friction-backend"])
def test_prometheus_finds_the_port_and_the_token(parts, unpack, tmp_path, name):
    """The ServiceMonitor selects one Service, names its port, and a key of a Secret that is there: the port and the token of
    the settings. A policy lets Prometheus in there, and there alone.
    """
    objects = parts("components")
    monitor = objects.get("ServiceMonitor", name, "friction-forwarder")
    (endpoint,) = monitor["spec"]["endpoints"]
    labels = monitor["spec"]["selector"]["matchLabels"]
    (service,) = [one for one in objects.of("Service") if labels.items() <= one["metadata"]["labels"].items()]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    credentials = endpoint["authorization"]["credentials"]
    token = objects.data("Secret", credentials["name"], "friction-forwarder")[credentials["key"]]
    template = objects.template(name)
    environment = unpack(objects, "friction-forwarder", template)
    document = expand(settings_document(tmp_path, template), environment)
    telemetry = convert(document, Config if name == "friction-forwarder" else ExitsConfig).telemetry
    assert telemetry.token == token.decode()
    (port,) = [port for port in template["spec"]["containers"][0]["ports"] if port["name"] == "telemetry"]
    assert telemetry.listen == f":{port['containerPort']}"
    policy = objects.get("NetworkPolicy", f"{name}-metrics", "friction-forwarder")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (rule,) = policy["ingress"]
    assert [one["port"] for one in rule["ports"]] == [port["containerPort"]]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_mounted_is_what_is_tested(parts, variant):
    """Rules and Fluent Bit configuration are the repository's files, byte by byte."""
    objects = parts(variant)
    volume = next(v for v in objects.template("friction-agent")["spec"]["volumes"] if v["name"] == "settings")
    mounted = objects.data("ConfigMap", volume["configMap"]["name"], "friction-forwarder-nodes")
    assert mounted == {"node.yaml": (ROOT / "fluent-bit/node.yaml").read_bytes()}
    rules = objects.data("ConfigMap", "friction-forwarder-rules", "friction-forwarder")
    assert rules == {"friction.yaml": (ROOT / "rules/friction.yaml").read_bytes()}


def test_changed_rules_reach_running_receivers(parts):
    """A folder without subPath and a name without hash: the kubelet swaps the files, nothing restarts."""
    template = parts("kubeadm").template("friction-forwarder")
    (mount,) = [m for m in template["spec"]["containers"][0]["volumeMounts"] if m["name"] == "rules"]
    assert "subPath" not in mount
    volume = next(v for v in template["spec"]["volumes"] if v["name"] == "rules")
    assert volume["configMap"] == {"name": "friction-forwarder-rules"}


# --- how it behaves --------------------------------------------------------------------------------------------------


def test_receivers_survive_each_other(parts):
    """Two, on different nodes where possible; each keeps its volume, also when it is scaled away; one may be disrupted."""
    objects = parts("kubeadm")
    owner = objects.get("StatefulSet", "friction-forwarder", "friction-forwarder")
    assert owner["spec"]["replicas"] == 2
    assert owner["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenScaled": "Retain", "whenDeleted": "Retain"}
    (term,) = owner["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == owner["spec"]["selector"]["matchLabels"]
    (budget,) = objects.of("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_there_is_time_to_drain(parts):
    """preStop's wait, the sources' and the sinks' deadlines fit into what Kubernetes grants."""
    spec = parts("kubeadm").template("friction-forwarder")["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    waits_s = float(command[command.index("--timeout") + 1])
    needed_s = waits_s + pipeline.SOURCES_STOP_S + pipeline.SINKS_STOP_S
    assert needed_s < spec["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("variant", "folder", "pattern"),
    [
        ("kubeadm", "/var/log/kubernetes/audit", "audit*.log"),
        ("k3s", "/var/log", "k3s-audit*.log"),
        ("rke2", "/var/lib/rancher/rke2/server/logs", "audit*.log"),
        ("plain", "/var/log/audit", "audit*.log"),
    ],
)
def test_the_agent_on_its_node(parts, variant, folder, pattern):
    """The log's folder read-only, state on the node, every control-plane node whatever is wrong with it, root without powers."""
    objects = parts(variant)
    assert len(objects.of("DaemonSet")) == 1
    spec = objects.template("friction-agent")["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    container = spec["containers"][0]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert volumes["audit"]["hostPath"] == {"path": folder, "type": "Directory"}
    assert mounts["audit"]["readOnly"] is True
    assert environment["AUDIT_LOG_PATH"] == f"{mounts['audit']['mountPath']}/{pattern}"
    assert volumes["state"]["hostPath"]["type"] == "DirectoryOrCreate"
    assert environment["FLUENT_BIT_STATE"] == mounts["state"]["mountPath"]
    assert {name for name, mount in mounts.items() if not mount.get("readOnly")} == {"state"}
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["tolerations"] == [{"operator": "Exists"}]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (0, 0)


def test_the_agents_variables_are_those_of_its_configuration(parts):
    """Each name that the DaemonSet sets is read by fluent-bit/node.yaml."""
    text = (ROOT / "fluent-bit/node.yaml").read_text()
    for variable in parts("kubeadm").template("friction-agent")["spec"]["containers"][0]["env"]:
        assert re.search(rf"\${{{variable['name']}[:}}]", text), variable["name"]


def test_the_agent_reaches_receivers_and_names_only(parts):
    """Nobody reaches it."""
    policy = parts("kubeadm").get("NetworkPolicy", "friction-agent", "friction-forwarder-nodes")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    assert [[port["port"] for port in rule["ports"]] for rule in policy["egress"]] == [[24224], [53, 53]]


def test_the_agent_expects_the_name_in_the_receivers_certificate(parts):
    """The Service's name in its namespace is what it dials."""
    objects = parts("kubeadm")
    container = objects.template("friction-agent")["spec"]["containers"][0]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    service, namespace, _ = environment["FORWARDER_HOST"].split(".")
    port = objects.get("Service", service, namespace)["spec"]["ports"][0]
    assert port["port"] == 24224
    assert environment["FORWARDER_TLS_NAME"] == service


def test_namespaces_say_what_they_hold(parts):
    """The services' namespace enforces the restricted level; the agents' allows hostPath and warns nobody."""
    namespaces = {one["metadata"]["name"]: one["metadata"]["labels"] for one in parts("kubeadm").of("Namespace")}
    level = "pod-security.kubernetes.io/enforce"
    assert {name: labels[level] for name, labels in namespaces.items()} == {
        "friction-forwarder": "restricted",
        "friction-forwarder-nodes": "privileged",
    }


def test_the_repositorys_overlay_is_the_written_one_without_secrets(render, parts):
    """deploy/overlays/everything and `forwarder init --kubernetes` install the same."""

    def names(objects):
        return sorted((one["kind"], re.sub(r"-[a-z0-9]{10}$", "", one["metadata"]["name"])) for one in objects)

    written = [one for one in parts("kubeadm") if one["kind"] != "Secret"]
    assert names(render(ROOT / "deploy/overlays/everything")) == names(written)


def test_the_sidecars_two_patches_say_the_same():
    """But for what a static pod cannot have: Secrets, a network and a user of its own."""
    deployment = yaml.safe_load((ROOT / "deploy/sidecar/deployment-patch.yaml").read_text())
    static = yaml.safe_load((ROOT / "deploy/sidecar/kube-apiserver+strategic.yaml").read_text())
    (one,) = [c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == "friction-sidecar"]
    (other,) = static["spec"]["containers"]

    def arguments(container):
        return {argument for argument in container["args"] if not argument.startswith("--telemetry")}

    assert arguments(one) == arguments(other)
    assert one["resources"] == other["resources"]
    assert one["securityContext"]["capabilities"] == other["securityContext"]["capabilities"]
    assert {mount["mountPath"] for mount in one["volumeMounts"]} == {
        mount["mountPath"] for mount in other["volumeMounts"]
    }
