"""Watches for a cloud's notice that it takes the machine away, so that runs can stop in time."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping

#: Seconds from one question to the next: what each of the clouds advises, or less.
_EVERY_S = 5.0
_TIMEOUT_S = 2.0
_GOOGLE = "http://metadata.google.internal"
_LINK_LOCAL = "http://169.254.169.254"
#: Where else the metadata lies, for a proxy in between.
_ENDPOINT = "EXPMGR_METADATA_URL"


@contextlib.contextmanager
def watching(cloud: str, tell: Callable[[], None], every_s: float = _EVERY_S) -> Iterator[None]:
    """Within, `tell` is called once when `cloud` (`gce`, `aws`, `azure`) announces the end; `off` asks nobody."""
    if cloud == "off":
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not is_announced(cloud):
            if ended.wait(every_s):
                return
        tell()

    thread = threading.Thread(target=watch, name="preemption", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


def is_announced(cloud: str) -> bool:
    """Whether the machine is about to go. Where the metadata cannot be read, it is not."""
    try:
        return {"gce": _gce, "aws": _aws, "azure": _azure}[cloud]()
    except (OSError, ValueError, http.client.HTTPException):  # no answer, another answer, or not that cloud
        return False


def _gce() -> bool:
    return _get(_GOOGLE, "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}).strip() == "TRUE"


def _aws() -> bool:
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = _get(_LINK_LOCAL, "/latest/api/token", ttl, method="PUT")
    answer = _get(_LINK_LOCAL, "/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    return json.loads(answer).get("action") in ("terminate", "stop", "hibernate")


def _azure() -> bool:
    """Its list holds the events of the whole scale set, so the machine's own name is looked for."""
    header = {"Metadata": "true"}
    events = json.loads(_get(_LINK_LOCAL, "/metadata/scheduledevents?api-version=2020-07-01", header)).get("Events", [])
    found = [one for one in events if one.get("EventType") in ("Preempt", "Terminate")]
    if not found:
        return False
    name = _get(_LINK_LOCAL, "/metadata/instance/compute/name?api-version=2021-02-01&format=text", header).strip()
    return any(name in one.get("Resources", []) for one in found)


def _get(host: str, path: str, headers: Mapping[str, str], method: str = "GET") -> str:
    request = urllib.request.Request(os.environ.get(_ENDPOINT, host) + path, headers=dict(headers), method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # metadata is never behind a proxy
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        return str(answer.read().decode("utf-8"))
