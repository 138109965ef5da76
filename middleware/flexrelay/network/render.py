"""The same network for containers: every process as a container of the official images, in one compose file or as the
values of a Helm chart (deploy/fabric/chart).

Certificates, first blocks, packages and profiles are made in the folder as for a native network; nodes find each other
by name. Ports are published on loopback under the numbers that they have inside, so channels and contracts are brought
up from here (`flexrelay network join`) exactly as on a native network.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from flexrelay.network.authority import write_secret, write_whole
from flexrelay.network.errors import NetworkError
from flexrelay.network.genesis import HOST
from flexrelay.network.material import dns_name
from flexrelay.network.plan import Kind, Plan, Process, processes_of
from flexrelay.network.processes import Program

Target = Literal["compose", "helm"]

RELEASES: Final = {"3.1": "3.1.1", "2.5": "2.5.9"}
"""Version of a description → tag of the official images."""

INSIDE: Final = "/flexrelay"
"""Where a network's folder is in a container."""

_CONFIG: Final = "/etc/hyperledger/fabric"
_PORTS: Final[dict[Kind, tuple[str, ...]]] = {
    "orderer": ("grpc", "admin", "operations"),
    "peer": ("grpc", "chaincode", "operations"),
    "contract": ("grpc", "health"),
}
"""What a node's ports are called, in the order of its process' purposes."""

_HOST_NAME: Final = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_LONGEST: Final = 52
"""Letters of a name: Kubernetes appends eleven more to a StatefulSet's for a label, which may have 63."""


@dataclass(frozen=True, slots=True)
class Container:
    """One process as a container. `name`: its host name; `ports`: what for → number; `files`: paths below the network's
    folder of what it reads; `data`: what it keeps."""

    name: str
    kind: Kind
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    files: tuple[str, ...]
    data: str


def render(plan: Plan, target: Target, chaincode_image: str) -> Path:
    """Write `compose.yaml` or `values.yaml` into the network's folder; the file."""
    containers = [_container(plan, process, chaincode_image) for process in processes_of(plan.spec)]
    if target == "compose":
        path = plan.folder.root / "compose.yaml"
        write_whole(path, yaml(compose(plan.spec.name, containers)).encode())
    else:
        path = plan.folder.root / "values.yaml"
        write_secret(path, yaml(values(plan, containers)).encode())  # private keys are in it
    return path


def check_names(processes: Sequence[Process]) -> None:
    """Whether each process has a host name of its own. Raises NetworkError: one line for each that has not."""
    taken: dict[str, str] = {}
    problems = []
    for process in processes:
        name = dns_name(process.name)
        where = f"{'contracts' if process.kind == 'contract' else 'organisations'}: {process.name}"
        if not _HOST_NAME.fullmatch(name) or len(name) > _LONGEST:
            problems.append(
                f"{where} would have the host name {name}, which must begin with a letter, have letters, digits and "
                f"hyphens only and at most {_LONGEST} of them; choose another name or version"
            )
        elif name in taken:
            problems.append(f"{where} and {taken[name]} would have the same host name {name}; rename one")
        taken[name] = process.name
    if problems:
        raise NetworkError("\n".join(problems))


def compose(name: str, containers: list[Container]) -> dict[str, Any]:
    """The compose file's document."""
    services: dict[str, Any] = {}
    for container in containers:
        services[container.name] = {
            "image": _literal(container.image),
            "command": [_literal(word) for word in container.command],
            "environment": {key: _literal(value) for key, value in container.environment.items()},
            "ports": [f"{HOST}:{port}:{port}" for port in container.ports.values()],
            "volumes": [
                *(f"./{file}:{INSIDE}/{file}:ro" for file in container.files),
                *([f"{container.name}:{INSIDE}/{container.data}"] if container.kind != "contract" else []),
            ],
            "user": "0:0",  # keys are readable by their owner alone
            "security_opt": ["no-new-privileges:true"],
            "restart": "unless-stopped",
            "stop_grace_period": "15s",
        }
        if container.kind == "contract":  # the image's own check asks another port
            services[container.name]["healthcheck"] = {"disable": True}
    kept: dict[str, Any] = {container.name: {} for container in containers if container.kind != "contract"}
    return {"name": name, "services": services, "volumes": kept}


def values(plan: Plan, containers: list[Container]) -> dict[str, Any]:
    """The values of the chart: nodes with the contents of their files, by path."""
    return {
        "network": plan.spec.name,
        "nodes": [
            {
                "name": container.name,
                "kind": container.kind,
                "image": container.image,
                "command": list(container.command),
                "environment": dict(container.environment),
                "ports": [{"name": name, "port": port} for name, port in container.ports.items()],
                "probe": _probe(plan, container),
                "data": f"{INSIDE}/{container.data}",
                "storage": "1Gi" if container.kind == "contract" else "20Gi",
                "files": [
                    {
                        "key": f"file-{number}",
                        "path": f"{INSIDE}/{file}",
                        "executable": file.startswith("builder/"),
                        "content": base64.b64encode((plan.folder.root / file).read_bytes()).decode(),
                    }
                    for number, file in enumerate(container.files)
                ],
            }
            for container in containers
        ],
    }


def _probe(plan: Plan, container: Container) -> dict[str, Any]:
    """How Kubernetes asks whether it works."""
    if container.kind == "peer" and plan.spec.fabric == "2.5":  # its /healthz wants Docker, see `health`
        return {"tcpSocket": {"port": "grpc"}}
    return {"httpGet": {"path": "/healthz", "port": list(container.ports)[-1]}}


def _container(plan: Plan, process: Process, chaincode_image: str) -> Container:
    program = plan.program(process)
    material = plan.materials[process.org]
    root = plan.folder.root
    own = [path for path in material.folder.joinpath(process.name).rglob("*") if path.is_file()]
    files = [*own, material.tls_root]
    if process.kind == "peer":
        files += [path for path in (root / "builder").rglob("*") if path.is_file()]
    if process.kind == "contract":
        files.append(plan.folder.contracts / f"{process.name}.toml")
    release = RELEASES[plan.spec.fabric]
    return Container(
        name=dns_name(process.name),
        kind=process.kind,
        image=chaincode_image if process.kind == "contract" else f"hyperledger/fabric-{process.kind}:{release}",
        command=_command(plan, process, program),
        environment=dict(_environment(plan, program)),
        ports={name: plan.ports[purpose] for name, purpose in zip(_PORTS[process.kind], process.purposes, strict=True)},
        files=tuple(sorted(str(path.relative_to(root)) for path in files)),
        data=str(plan.folder.data(process.name).relative_to(root)),
    )


def _command(plan: Plan, process: Process, program: Program) -> tuple[str, ...]:
    if process.kind == "contract":  # the image's entry point is the chaincode; this names its configuration
        return ("--config", f"{INSIDE}/contracts/{process.name}.toml")
    return (Path(program.command[0]).name, *program.command[1:])


def _environment(plan: Plan, program: Program) -> Iterator[tuple[str, str]]:
    """What the native process gets, with the places of a container."""
    for name, value in program.environment.items():
        if name == "FABRIC_CFG_PATH":
            yield name, _CONFIG
        elif name not in ("PYTHONPATH", "PYTHONUNBUFFERED"):
            yield name, value.replace(str(plan.folder.root), INSIDE)


def _literal(text: str) -> str:
    """A text that compose takes as it is: it puts variables in where a dollar stands."""
    return text.replace("$", "$$")


def yaml(value: Any, depth: int = 0) -> str:
    """A document of objects, lists, texts and numbers as YAML; texts are quoted as in JSON, which YAML reads."""
    pad = "  " * depth
    if isinstance(value, Mapping) and value:
        return "".join(f"{pad}{_scalar(key)}:{_below(item, depth)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}-{_item(item, depth)}" for item in value)
    return f"{pad}{_scalar(value)}\n"


def _below(value: Any, depth: int) -> str:
    if isinstance(value, Mapping | list) and value:
        return "\n" + yaml(value, depth + 1)
    return f" {_scalar(value)}\n"


def _item(value: Any, depth: int) -> str:
    if isinstance(value, Mapping) and value:
        return " " + yaml(value, depth + 1).lstrip()
    return _below(value, depth)


def _scalar(value: Any) -> str:
    text = json.dumps(value)
    plain = isinstance(value, str) and value[:1].isalpha() and value.replace("_", "").replace("-", "").isalpha()
    return (
        value if plain and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n") else text
    )
