"""The provisioning API of the IoT Agents: /iot/services (also /iot/groups) and /iot/devices.

Provisioned devices wait for their enrolment in the gateway: `<api key>/<device id>` is the credential to bind.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexrelay_adapters.iotagent.config import ApiKey
from flexrelay_adapters.iotagent.registry import Document, Full, Provisioned, Taken

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
MAX_LIMIT: Final = 1000

Name = Annotated[str, Field(min_length=1, max_length=250, pattern=r"^[^\x00-\x1f]*$")]


class _Loose(BaseModel):
    """What else the IoT Agents know is kept and given back, without a meaning here."""

    model_config = ConfigDict(extra="allow")


class _Attribute(_Loose):
    name: Name
    object_id: Name | None = None


class _Service(_Loose):
    apikey: ApiKey
    resource: Annotated[str, Field(max_length=200)] = ""
    attributes: Annotated[list[_Attribute], Field(max_length=500)] = []


class _Device(_Loose):
    device_id: Annotated[str, Field(pattern=r"^[^/+#|@\x00-\x1f]{1,200}$")]
    apikey: ApiKey | None = None
    transport: Annotated[str, Field(max_length=20)] | None = None
    attributes: Annotated[list[_Attribute], Field(max_length=500)] = []


class _Services(_Loose):
    services: Annotated[list[_Service], Field(min_length=1, max_length=1000)]


class _Devices(_Loose):
    devices: Annotated[list[_Device], Field(min_length=1, max_length=10_000)]


class _Problem(Exception):
    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(message)
        self.response = JSONResponse({"name": name, "message": message}, status_code=status)


Handler = Callable[[Request, str, str], Awaitable[Response]]


class ProvisioningApi:
    """`resource` is the dialect's path, which a service without one gets."""

    def __init__(self, known: Provisioned, token: str, resource: str) -> None:
        self._known = known
        self._token = token.encode()
        self._resource = resource

    def application(self) -> Starlette:
        routes = [
            Route(path, self._guarded(self._services), methods=["GET", "POST", "PUT", "DELETE"])
            for path in ("/iot/services", "/iot/groups")
        ]
        routes += [
            Route("/iot/devices", self._guarded(self._devices), methods=["GET", "POST"]),
            Route("/iot/devices/{device}", self._guarded(self._device), methods=["GET", "PUT", "DELETE"]),
            Route("/iot/about", self._about, methods=["GET"]),
        ]
        return Starlette(routes=routes)

    def _guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                self._authorize(request)
                missing = [name for name in ("fiware-service", "fiware-servicepath") if not request.headers.get(name)]
                if missing:
                    raise _Problem(400, "MISSING_HEADERS", f"Some headers were missing from the request: {missing}")
                return await handler(
                    request, request.headers["fiware-service"].lower(), request.headers["fiware-servicepath"]
                )
            except _Problem as problem:
                return problem.response

        return guarded

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("x-auth-token", "")
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given = bearer
        if not hmac.compare_digest(given.strip().encode(), self._token):
            raise _Problem(401, "UNAUTHORIZED", "give the token as Authorization: Bearer … or X-Auth-Token")

    async def _about(self, request: Request) -> Response:
        return JSONResponse({"libVersion": "flexrelay", "version": "1", "baseRoot": "/"})

    async def _services(self, request: Request, service: str, path: str) -> Response:
        known, query = self._known, request.query_params
        if request.method == "GET":
            found = known.services(service, path)
            resource, apikey = query.get("resource"), query.get("apikey")
            found = [
                each
                for each in found
                if (resource is None or each["resource"] == resource) and (apikey is None or each["apikey"] == apikey)
            ]
            return JSONResponse({"count": len(found), "services": found})
        if request.method == "POST":
            body = await _body(request)
            _checked(_Services, body)
            documents = [{"resource": self._resource, **each} for each in body["services"]]
            documents = [{**each, "resource": each["resource"] or self._resource} for each in documents]
            scope = {"service": service, "subservice": path}
            try:
                known.add_services(service, path, [{**each, **scope} for each in documents])
            except Taken as error:
                raise _Problem(409, "DUPLICATE_GROUP", str(error)) from None
            return JSONResponse({}, status_code=201)
        apikey, resource = query.get("apikey"), query.get("resource") or self._resource
        if apikey is None:
            raise _Problem(400, "MISSING_PARAMETERS", "apikey (and resource) name the service in the query")
        if request.method == "PUT":
            body = await _body(request)
            _checked(_Service, {"apikey": apikey, **body})
            done = known.change_service(service, path, apikey, resource, body)
        else:
            done = known.remove_service(service, path, apikey, resource)
        if not done:
            raise _Problem(404, "DEVICE_GROUP_NOT_FOUND", f"there is no service {resource} with this API key")
        return Response(status_code=204)

    async def _devices(self, request: Request, service: str, path: str) -> Response:
        if request.method == "GET":
            limit, offset = (_number(request, name, most) for name, most in (("limit", MAX_LIMIT), ("offset", 10**9)))
            count, found = self._known.devices(service, path, limit or 20, offset)
            return JSONResponse({"count": count, "devices": found})
        body = await _body(request)
        _checked(_Devices, body)
        scope = {"service": service, "service_path": path}
        documents = [{**each, **scope, "apikey": self._apikey(service, path, each)} for each in body["devices"]]
        try:
            self._known.add_devices(service, path, documents)
        except Taken as error:
            raise _Problem(409, "DUPLICATE_DEVICE_ID", str(error)) from None
        except Full as error:
            raise _Problem(507, "TOO_MANY_DEVICES", str(error)) from None
        return JSONResponse({}, status_code=201)

    async def _device(self, request: Request, service: str, path: str) -> Response:
        name, apikey = request.path_params["device"], request.query_params.get("apikey")
        if request.method == "GET":
            found = self._known.device(service, path, name, apikey)
            if found is not None:
                return JSONResponse(found)
            done = False
        elif request.method == "PUT":
            body = await _body(request)
            body.pop("device_id", None)
            _checked(_Device, {**body, "device_id": name})
            done = self._known.change_device(service, path, name, body, apikey)
        else:
            done = self._known.remove_device(service, path, name, apikey)
        if not done:
            raise _Problem(404, "DEVICE_NOT_FOUND", f"No device was found with id: {name}")
        return Response(status_code=204)

    def _apikey(self, service: str, path: str, device: Document) -> str:
        """Its own, or that of the one service where it is provisioned."""
        if device.get("apikey"):
            return str(device["apikey"])
        keys = {each["apikey"] for each in self._known.services(service, path)}
        if len(keys) != 1:
            raise _Problem(
                400, "WRONG_SYNTAX", f"device {device['device_id']}: give its apikey; {service}{path} has {len(keys)}"
            )
        return str(keys.pop())


async def _body(request: Request) -> Document:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            raise _Problem(413, "WRONG_SYNTAX", f"at most {MAX_BODY_BYTES} bytes are taken")
    try:
        body = json.loads(bytes(data))
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()  # what is kept must be told again
    except (ValueError, RecursionError):
        raise _Problem(400, "WRONG_SYNTAX", "the body is no JSON") from None
    if not isinstance(body, dict):
        raise _Problem(400, "WRONG_SYNTAX", "the body is no JSON object")
    return body


def _checked(model: type[BaseModel], body: Document) -> None:
    try:
        model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _Problem(400, "WRONG_SYNTAX", f"Wrong syntax in request: {place}: {first['msg']}") from None


def _number(request: Request, name: str, most: int) -> int:
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > most:
        raise _Problem(400, "WRONG_SYNTAX", f"{name} is a number up to {most}")
    return int(text)
