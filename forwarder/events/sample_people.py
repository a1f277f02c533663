"""What people do with kubectl: ways around the platform, and much that looks like one and is none.

Each deed is one or more requests in the order in which kubectl makes them (it reads before it writes). The rule that a
request should trip stands beside it, by its name in the shipped friction.yaml, or nothing for a near miss.
"""

import random
from collections.abc import Callable, Sequence
from urllib.parse import quote_plus

import msgspec

from forwarder.events.sample_cluster import API, SECRETS, Body, Cluster, User, Workload
from forwarder.events.sample_lines import audit_event, object_uri, service_account

KUBECTL = "kubectl/v1.34.2 (linux/amd64) kubernetes/4cb5f07"
HOSTILE_AGENT = '","verb":"list","objectRef":{"resource":"pods"},"x":"<&>'  # a client chooses its own User-Agent
BYPASS = "policy.admission.k8s.io/bypass"
COMMANDS: Sequence[tuple[str, ...]] = (
    ("sh",),
    ("bash", "-l"),
    ("env",),
    ("sh", "-c", "curl -s localhost:8080/debug?on=1&level=5 > /tmp/dump && tail -n 50 /tmp/dump"),
    ("python", "manage.py", "migrate", "--fake"),
    ("psql", "-c", "select count(*) from orders where total < 0"),
    ("tar", "cf", "-", "/var/lib/app"),
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a person or of a machine that looks like one.

    event: with marks, as for a template. rule: what it trips; "" for none. two_stages: it streams until it is closed.
    workload: the service that it is about. command: of an exec. acting_as: under impersonation.
    """

    event: Body
    rule: str = ""
    two_stages: bool = False
    namespace: str = ""
    workload: str = ""
    name: str = ""
    actor: str = ""
    command: tuple[str, ...] = ()
    acting_as: str = ""


Deed = Callable[["People"], list[Request]]


class People:
    """Draws what happens next; `friction()` is one deed with exactly one request that trips a rule, `near_miss()` has none."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.rng: random.Random = cluster.rng
        self._deployed = [workload for workload in cluster.workloads if workload.kind != "CronJob"]
        self._images = [workload for workload in cluster.workloads if workload.kind == "Deployment"]

    def friction(self) -> list[Request]:
        """One way around the platform, and the reads that kubectl makes before it."""
        return self.rng.choices(_FRICTION, _FRICTION_WEIGHTS)[0](self)

    def near_miss(self) -> list[Request]:
        """Requests of which none is friction by friction.yaml."""
        return self.rng.choice(_NEAR_MISSES)(self)

    # --- friction ---

    def exec(self) -> list[Request]:
        """A command or shell in a pod, over a websocket (verb get) or SPDY (verb create), sometimes as somebody else."""
        rng = self.rng
        person, workload, pod = self._someone_and_pod()
        impersonated = service_account(workload.namespace, "deployer") if rng.random() < 0.1 else None
        verb = "get" if rng.random() < 0.7 else "create"
        command = rng.choice(COMMANDS)
        query = "&".join(
            [
                *(f"command={quote_plus(word)}" for word in command),
                "container=app",
                "stderr=true",
                "stdin=true",
                "stdout=true",
            ]
        )
        return [
            self._request("get", person, "pods", workload, pod),
            self._request(
                verb, person, "pods", workload, pod, "exec", query=query, rule="kubectl-exec", command=command,
                impersonated=impersonated, two_stages=True, code=101,
            ),
        ]  # fmt: skip

    def port_forward(self) -> list[Request]:
        """A tunnel to a pod."""
        person, workload, pod = self._someone_and_pod()
        verb = "get" if self.rng.random() < 0.7 else "create"
        more: Body = {"rule": "port-forward", "two_stages": True, "code": 101}
        return [
            self._request("get", person, "pods", workload, pod),
            self._request(verb, person, "pods", workload, pod, "portforward", **more),
        ]

    def read_secret(self) -> list[Request]:
        """A secret, read by name."""
        person, workload = self._someone_and_workload()
        agent = HOSTILE_AGENT if self.rng.random() < 0.05 else KUBECTL
        secret = f"{workload.name}-{self.rng.choice(SECRETS)}"
        return [
            self._request(
                "get", person, "secrets", workload, secret, agent=agent, rule="emergency-access", service=secret
            )
        ]

    def patch(self) -> list[Request]:
        """An image, a variable or a restart, set by hand on a workload."""
        person, workload = self._someone_and_workload()
        resource = API[workload.kind][0]
        container = {"name": "app", "image": f"registry.corp.example/{workload.namespace}/{workload.name}:hotfix"}
        change: Body = {
            "spec": {
                "template": {"spec": {"$setElementOrder/containers": [{"name": "app"}], "containers": [container]}}
            }
        }
        body = self.cluster.controller(workload)
        query = "fieldManager=kubectl-set"
        more: Body = {"request": change, "response": body, "query": query, "rule": "config-drift"}
        return [
            self._request("get", person, resource, workload, workload.name),
            self._request("patch", person, resource, workload, workload.name, **more),
        ]

    def scale(self) -> list[Request]:
        """Replicas by hand, by the scale subresource."""
        person = self._someone()
        workload = self.rng.choice(self._images)
        change: Body = {"spec": {"replicas": self.rng.randint(0, 9)}}
        answer = {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": workload.name}, **change}
        more: Body = {"request": change, "response": answer, "rule": "config-drift"}
        return [self._request("patch", person, "deployments", workload, workload.name, "scale", **more)]

    def run_pod(self) -> list[Request]:
        """A bare pod, started by hand."""
        person, workload = self._someone_and_workload()
        name = f"debug-{workload.name}"
        meta = {"name": name, "namespace": workload.namespace, "labels": {"run": name}}
        spec = {"containers": [{"name": name, "image": "busybox:1.37", "command": ["sleep", "3600"]}]}
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec}
        more: Body = {
            "request": pod,
            "response": pod,
            "query": "fieldManager=kubectl-run",
            "code": 201,
        }
        return [self._request("create", person, "pods", workload, name, rule="config-drift", service=name, **more)]

    def bypass(self) -> list[Request]:
        """The annotation that switches the policy gate off."""
        person = self._someone()
        workload = self.rng.choice(self._images)
        change: Body = {"metadata": {"annotations": {BYPASS: "true"}}}
        body = self.cluster.controller(workload, {BYPASS: "true"})
        query = "fieldManager=kubectl-annotate"
        more: Body = {
            "request": change,
            "response": body,
            "query": query,
            "rule": "pipeline-skip",
        }
        return [
            self._request("get", person, "deployments", workload, workload.name),
            self._request("patch", person, "deployments", workload, workload.name, **more),
        ]

    # --- near misses ---

    def denied(self) -> list[Request]:
        """Attempts that RBAC refused: a secret, and the pod that an exec would have been for."""
        person, workload, pod = self._someone_and_pod()
        secret = f"{workload.name}-{SECRETS[0]}"
        said = f'User "{person.username}" cannot get resource in the namespace "{workload.namespace}"'
        more: Body = {"code": 403, "reason": "Forbidden"}
        return [
            self._request(
                "get", person, "secrets", workload, secret, message=f'secrets "{secret}" is forbidden: {said}', **more
            ),
            self._request("get", person, "pods", workload, pod, message=f'pods "{pod}" is forbidden: {said}', **more),
        ]

    def failed(self) -> list[Request]:
        """A change of what is not there, and an exec that opened no session although it reached its second stage."""
        person, workload, pod = self._someone_and_pod()
        gone: Body = {
            "code": 404,
            "reason": "NotFound",
            "message": 'deployments.apps "gone" not found',
        }
        broken: Body = {"code": 500, "reason": "InternalError", "message": "container not found", "two_stages": True}
        query = "command=sh&container=nope&stdout=true"
        return [
            self._request("patch", person, "deployments", workload, "gone", request={"spec": {"replicas": 1}}, **gone),
            self._request("get", person, "pods", workload, pod, "exec", query=query, **broken),
        ]

    def robot(self) -> list[Request]:
        """A pipeline's service account that runs commands, reads secrets and patches: what it is there for."""
        user = service_account("ci", "runner")
        workload = self.rng.choice(self._images)
        change: Body = {"spec": {"replicas": 3}}
        session: Body = {"query": "command=true&container=app&stdout=true", "two_stages": True, "code": 101}
        patch: Body = {"request": change, "response": self.cluster.controller(workload)}
        return [
            self._request("get", user, "pods", workload, workload.pods[0], "exec", **session),
            self._request("get", user, "secrets", workload, f"{workload.name}-{SECRETS[1]}"),
            self._request("patch", user, "deployments", workload, workload.name, **patch),
        ]

    def kube_system(self) -> list[Request]:
        """Work in a namespace that is ignored."""
        person = self._someone()
        session: Body = {"query": "command=sh&stdin=true&stdout=true&tty=true", "two_stages": True, "code": 101}
        where: Body = {"namespace": "kube-system"}
        dns = self.rng.choice(self._images)
        return [
            self._request(
                "get",
                person,
                "pods",
                dns,
                f"coredns-{dns.replica_set.rpartition('-')[2]}-x7k2p",
                "exec",
                **session,
                **where,
            ),
            self._request("get", person, "secrets", dns, "bootstrap-token-abcdef", **where),
        ]

    def looking(self) -> list[Request]:
        """Reads: pods, deployments, logs, and an edit that ended without a change."""
        person, workload, pod = self._someone_and_pod()
        return [
            self._request("list", person, "pods", workload, "", query="limit=500"),
            self._request(
                "get", person, "pods", workload, pod, "log", query="container=app&follow=true", two_stages=True
            ),
            self._request("get", person, "deployments", workload, workload.name),
            self._request("list", person, "secrets", workload, "", query="limit=500"),
        ]

    def config(self) -> list[Request]:
        """A ConfigMap patched and a pod deleted by hand: friction for extended.yaml only."""
        person, workload, pod = self._someone_and_pod()
        return [
            self._request(
                "patch", person, "configmaps", workload, f"{workload.name}-config", query="fieldManager=kubectl-edit"
            ),
            self._request("delete", person, "pods", workload, pod),
        ]

    # --- how a request is made ---

    def _request(
        self,
        verb: str,
        user: User,
        resource: str,
        workload: Workload,
        name: str,
        subresource: str = "",
        *,
        query: str = "",
        namespace: str = "",
        service: str = "",
        rule: str = "",
        command: tuple[str, ...] = (),
        two_stages: bool = False,
        agent: str = KUBECTL,
        impersonated: User | None = None,
        code: int = 200,
        message: str = "",
        reason: str = "",
        request: Body | None = None,
        response: Body | None = None,
    ) -> Request:
        namespace = namespace or workload.namespace
        group = next((group for plural, group, _ in API.values() if plural == resource), "")
        reference = {"resource": resource, "namespace": namespace, "name": name, "apiGroup": group, "apiVersion": "v1"}
        reference["subresource"] = subresource
        event = audit_event(
            "Metadata" if request is None else "RequestResponse",
            verb,
            object_uri(reference if verb != "create" or subresource else {**reference, "name": ""}, query),
            user,
            agent,
            reference,
            code=code,
            impersonated=impersonated,
            request=request,
            response=response,
            message=message,
            reason=reason,
            source_ip="192.0.2.17",
        )
        return Request(
            event=event,
            rule=rule,
            two_stages=two_stages,
            namespace=namespace,
            workload=service or workload.name,
            name=name,
            actor=user.username,
            command=command,
            acting_as=impersonated.username if impersonated is not None else "",
        )

    def _someone(self) -> User:
        return self.rng.choice(self.cluster.people)

    def _someone_and_workload(self) -> tuple[User, Workload]:
        return self._someone(), self.rng.choice(self.cluster.workloads)

    def _someone_and_pod(self) -> tuple[User, Workload, str]:
        person, workload = self._someone_and_workload()
        return person, workload, self.rng.choice(workload.pods)


_FRICTION: tuple[Deed, ...] = (
    People.exec, People.port_forward, People.read_secret, People.patch, People.scale, People.run_pod, People.bypass,
)  # fmt: skip
_FRICTION_WEIGHTS = (30, 12, 18, 18, 8, 6, 8)
_NEAR_MISSES: tuple[Deed, ...] = (
    People.denied, People.failed, People.robot, People.kube_system, People.looking, People.config,
)  # fmt: skip
