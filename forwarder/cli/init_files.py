"""The texts that `forwarder init` writes. Every value was checked before it comes here."""

import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from forwarder.cli.environment import VARIABLES
from forwarder.cli.init_webhook import CERTS, TOKEN, Webhook


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What a person said; `audit_log` and `forward_listen` are empty where there is none, `webhook` is None."""

    cluster: str = ""
    audit_log: str = ""
    forward_listen: str = ""
    backend_url: str = ""
    data_dir: str = ""
    webhook: Webhook | None = None


def forwarder_yaml(answers: Answers) -> str:
    """Settings of `forwarder receive`."""
    forward = f"""
  forward:                                # Fluent Bit's `forward` output connects here
    listen: {answers.forward_listen}
    shared_key: ${{FORWARD_SHARED_KEY}}      # the same as in Fluent Bit's output; nobody else gets in
"""
    file = f"""
  file:                                   # an audit log on this machine
    path: "{answers.audit_log}"
    start: end                            # or beginning: also what was written before the first start
    checkpoint: "{answers.data_dir}/file.json"   # where reading goes on after a restart
"""
    sources = (
        _webhook(answers.webhook) + (forward if answers.forward_listen else "") + (file if answers.audit_log else "")
    )
    return f"""# What `forwarder receive --config forwarder.yaml` runs. ${{NAME}} comes from the environment, or from the
# file .env beside this one. An unknown key is an error that names the nearest valid one.

cluster: {answers.cluster}   # in every event; tells clusters apart where several report to one backend

sources:                                  # where audit events come in
{sources.strip(chr(10))}

detection:
  rules: [rules/friction.yaml]            # files or folders; changes are taken up while it runs
  # own_namespace: forwarder              # never reported; in Kubernetes set K8S_NAMESPACE instead

outbox:                                   # keeps events until everyone has them; must survive a restart
  path: "{answers.data_dir}/outbox.db"
  max_bytes: 1GiB                         # beyond it senders wait; about 1 kB per event not yet delivered

sinks:                                    # where friction events go
  backend:
    url: {answers.backend_url}
    api_key: ${{HEALERT_API_KEY}}           # the same as the backend's

telemetry:
  listen: 127.0.0.1:9000                  # /metrics, /healthz, /readyz; elsewhere it needs a `token`

log:
  level: info                             # debug, info, warning or error
  format: text                            # or json
"""


def _webhook(webhook: Webhook | None) -> str:
    if webhook is None:
        return ""
    from forwarder.sources.webhook import PATHS  # here: every command loads this module

    tls = f"\n    tls: {{cert_file: {CERTS}/server.crt, key_file: {CERTS}/server.key}}" if webhook.tls else ""
    paths = "" if webhook.path in PATHS else f'    paths: ["{webhook.path}"]\n'
    return f"""
  webhook:                                # kube-apiserver posts here, see audit-webhook.kubeconfig
    listen: "{webhook.listen}"
{paths}    token: ${{{TOKEN}}}                 # the same as in the kubeconfig{tls}
"""


def backend_yaml(answers: Answers) -> str:
    """Settings of `forwarder backend`."""
    port = urlsplit(answers.backend_url).port or 8000
    return f"""# What `forwarder backend --config backend.yaml` runs, where the backend is on this machine.

backend:
  listen: 127.0.0.1:{port}                   # another address lets others in: with the key only
  database: "{answers.data_dir}/backend.db"   # or postgresql://user:password@host/name
  api_key: ${{HEALERT_API_KEY}}             # who writes must send it
  retention_days: ${{HEALERT_RETENTION_DAYS:-30}}       # older events are deleted
  threshold: ${{SCORE_CRITICAL_THRESHOLD:-50}}      # decayed points that make a score of 100; smaller is stricter
  half_life_days: ${{SCORE_DECAY_HALF_LIFE:-7}}     # after so many days an event counts half
  score_retention_days: ${{SCORE_RETENTION_DAYS:-30}}   # how far the score looks back
  # `forwarder backend settings` changes these four

log:
  level: info
  format: text
"""


def env_example() -> str:
    """Every variable, with its meaning; the keys go into `.env`."""
    lines = [
        "# Copy to .env (0600) what you need; `forwarder keys new` writes the keys.",
        "# What stands in a settings file or on the command line wins over these.",
    ]
    for variable in VARIABLES:
        older = f" (also {variable.older})" if variable.older else ""
        lines += ["", f"# {variable.meaning}{older}", f"#{variable.name}="]
    return "\n".join(lines) + "\n"


def systemd_units(folder: Path, answers: Answers) -> dict[str, str]:
    """The units by file name; they run the program that writes them."""
    state = f"ReadWritePaths={answers.data_dir}"
    if answers.data_dir == "/var/lib/forwarder":
        state = "StateDirectory=forwarder"
    program = shutil.which("forwarder") or f"{sys.executable} -P -m forwarder"
    return {
        "forwarder-backend.service": _unit(
            "friction-forwarder backend", f"{program} backend --config {folder}/backend.yaml", folder, state
        ),
        "forwarder-receive.service": _unit(
            "friction-forwarder receiver",
            f"{program} receive --config {folder}/forwarder.yaml",
            folder,
            f"{state}\n# kube-apiserver writes its audit log for root only; give it a group and name that here, or run as root\n"
            "# SupplementaryGroups=audit",
        ),
    }


def _unit(description: str, command: str, folder: Path, more: str) -> str:
    return f"""[Unit]
Description={description}
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
EnvironmentFile={folder}/.env
Restart=always
RestartSec=2
# drains, commits and acknowledges first
TimeoutStopSec=30
DynamicUser=yes
User=forwarder
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=yes
MemoryMax=512M
{more}

[Install]
WantedBy=multi-user.target
"""
