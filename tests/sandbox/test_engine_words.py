"""What an engine says is wrong, on one line and with its remedy; no engine is needed."""

from typing import ClassVar

import pytest
from docker.errors import APIError, DockerException

from aem_harness.harness.errors import DiskFault, EnvironmentFault
from aem_harness.harness.sandbox import build, engine
from aem_harness.harness.sandbox.engine import current, explained, unreached
from aem_harness.harness.sandbox.pull import NoImage, Pull, RegistryAway


def test_a_credential_helper_that_is_not_installed_is_one_line_with_the_remedy(monkeypatch):
    helper = "StoreError('docker-credential-desktop not installed or not available in PATH')"
    error = DockerException(f"Credentials store error: {helper}")
    assert "docker-credential-desktop is not installed: install it" in explained(error)

    class Api:
        hooks: ClassVar = {}

        def pull(self, *words, **more):
            raise error

        def build(self, **more):
            raise RuntimeError(helper)

    client = type("Client", (), {"api": Api(), "close": lambda self: None})
    monkeypatch.setattr(current(), "connect", lambda **more: client())
    monkeypatch.setattr(build, "client", client)
    with pytest.raises(
        EnvironmentFault, match="image x cannot be pulled: the credential helper docker-credential-desktop"
    ):
        Pull("x").run()
    with pytest.raises(EnvironmentFault, match="cannot build x: the credential helper docker-credential-desktop"):
        build._run_build("x", {"Dockerfile": b"FROM y"}, "r", {})


def test_the_engine_s_explanation_is_printed_and_not_the_address_of_the_call():
    error = APIError("500 Server Error for http+docker://localhost/v1.41/images: Internal", explanation="disk\n full")
    assert explained(error) == "disk full"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("initializing source docker://r:5000/x: pinging container registry r:5000: connection refused", True),
        ("dial tcp: lookup registry.example on 10.0.0.1:53: no such host", True),
        ("reading manifest latest in r/x: manifest unknown", False),
    ],
)
def test_a_dead_registry_is_told_from_a_missing_image(words, answer):
    assert unreached(APIError("404", explanation=words)) is answer


def test_an_import_whose_tag_was_dropped_is_found_by_its_id():
    ident = "a" * 64
    assert build.imported_id(f'{{"status": "sha256:{ident}"}}') == f"{ident}" or build.imported_id(ident)
    with pytest.raises(EnvironmentFault, match="no space left"):
        build.imported_id('{"error": "no space left on device"}')


PING = 'Get "https://r.example/v2/": '


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (PING + "http: server closed idle connection", RegistryAway),
        (PING + "net/http: HTTP/1.x transport connection broken", RegistryAway),
        ('failed to do request: Head "https://r.example/v2/x/manifests/1": no route to host', RegistryAway),
        ("stream error: stream ID 7; INTERNAL_ERROR; received from peer", RegistryAway),
        ("received unexpected HTTP status: 503 Service Unavailable", RegistryAway),
        (PING + "x509: certificate signed by unknown authority", EnvironmentFault),
        (PING + "http: server gave HTTP response to HTTPS client", EnvironmentFault),
        (PING + "no basic auth credentials", EnvironmentFault),
        (PING + "denied: access forbidden", NoImage),
        ("manifest for r.example/x/tokio-503:500 not found: manifest unknown", NoImage),
        ("something else of r.example/x/tokio-503:500", EnvironmentFault),
    ],
)
def test_a_registry_that_gives_no_answer_is_waited_for_and_one_that_refuses_is_not(monkeypatch, words, fault):
    class Api:
        hooks: ClassVar = {}

        def pull(self, *_, **__):
            return [{"error": words}]

    client = type("Client", (), {"api": Api(), "close": lambda self: None})
    monkeypatch.setattr(current(), "connect", lambda **more: client())
    with pytest.raises(EnvironmentFault) as caught:
        Pull("r.example/x/tokio-503:500").run()
    assert type(caught.value) is fault


def test_an_engine_is_asked_once_who_it_is_and_a_podman_not_for_the_id_that_it_makes_up(monkeypatch):
    answers = []

    class Client:
        def info(self):
            answers.append(None)
            return {**said, "ID": f"made up {len(answers)}"}

    monkeypatch.setattr(engine, "client", Client)
    said = {"Name": "host", "DockerRootDir": "/data"}
    assert engine.identity() == "made up 1 host /data"
    assert len(answers) == 1
    said = {"Name": "host", "DockerRootDir": "/data", "BuildahVersion": "1.28.2"}
    assert engine.identity() == engine.identity() == " host /data"


@pytest.mark.parametrize(
    ("image", "words", "fault", "shown"),
    [
        ("a:1", "manifest for a:1 not found: manifest unknown", NoImage, "manifest unknown"),
        ("registry:2", "pinging container registry r.example: refused", RegistryAway, "pinging"),
        ("x/y:1", "rate limit of writes: no space left on device", DiskFault, "no space left"),
        ("x/y:1", "toomanyrequests: slow down", RegistryAway, "docker login"),
    ],
)
def test_why_a_pull_failed_is_read_from_the_words_around_the_image_s_name(image, words, fault, shown):
    why = Pull(image, mirror="")._why(words)
    assert type(why) is fault
    assert shown in str(why)


AWAY, BROKEN = RegistryAway, EnvironmentFault
PODMAN = 'initializing source docker://r:5000/x:1: pinging container registry r:5000: Get "https://r:5000/v2/": '
STORE = "failed to prepare extraction snapshot: parent snapshot sha256:bb does not exist: not found"


@pytest.mark.parametrize(
    ("image", "words", "fault"),
    [
        ("x/y:1", "fetching blob: too many requests to registry", AWAY),
        ("x/y:1", "denied: Quota exceeded for quota metric 'Requests per project per region'", AWAY),
        ("x/y:1", "unexpected status code https://r.example/v2/x/y/blobs/sha256:aa: 429 Too Many Requests", AWAY),
        ("x/y:1", "error parsing HTTP 524 response body: invalid character '<'", AWAY),
        ("x/y:1", 'error parsing HTTP 429 response body: unexpected end of JSON input: ""', AWAY),
        ("x/y:1", 'fetching blob: StatusCode: 522, "<html>"', AWAY),
        ("x/y:1", "failed to copy: local error: tls: bad record MAC", AWAY),
        ("x/y:1", PING + "remote error: tls: bad record MAC", AWAY),
        ("x/y:1", "filesystem layer verification failed for digest sha256:aa", AWAY),
        ("x/y:1", "Source image rejected: cryptographic signature verification failed: invalid signature", BROKEN),
        ("x/y:1", 'failed commit on ref "layer-sha256:aa": unexpected commit digest sha256:bb', AWAY),
        ("x/y:1", "Digest did not match, expected sha256:aa, got sha256:bb", AWAY),
        ("x/y:1", PING + "proxyconnect tcp: dial tcp 127.0.0.1:3128: connect: connection refused", AWAY),
        ("x/y:1", PING + "Service Unavailable", AWAY),
        ("x/y:1", PING + "net/http: TLS handshake timeout", AWAY),
        ("x/y:1", PING + "Proxy Authentication Required", BROKEN),
        ("x/y:1", PING + "Forbidden", BROKEN),
        ("x/y:1", PING + "proxyconnect tcp: tls: first record does not look like a TLS handshake", BROKEN),
        ("r:5000/x:1", PODMAN + "http: server gave HTTP response to HTTPS client", BROKEN),
        ("r:5000/x:1", PODMAN + "tls: failed to verify certificate: x509: certificate has expired", BROKEN),
        ("r:5000/x:1", PODMAN + "dial tcp 1.2.3.4:5000: connect: connection refused", AWAY),
        ("x/y:1", STORE, BROKEN),
        ("x/y:1", "failed to register layer: layer does not exist", BROKEN),
        ("x/y:1", 'lease "1": not found', BROKEN),
        ("x/y:1", "open /var/lib/containers/storage/overlay: permission denied", BROKEN),
        ("x/y:1", 'exec: "docker-credential-x": executable file not found in $PATH', BROKEN),
        ("x/y:1", "denied: permission denied", NoImage),
        ("x/y:1", "may require authorization: authorization failed: no basic auth credentials: access denied", NoImage),
        ("x/y:1", 'no image found in manifest list for architecture "arm64", variant "v8", OS "linux"', NoImage),
        ("x/y:1", "name unknown: Repository name not known to registry", NoImage),
        ("x/y:503", "reading manifest 503 in docker.io/x/y: manifest unknown", NoImage),
        ("geoforge:1", "pull access denied for geoforge, repository does not exist", NoImage),
        ("layer:1", "pull access denied for layer, repository does not exist", NoImage),
    ],
)
def test_what_waiting_repairs_is_told_from_what_the_engine_lacks_and_from_a_missing_image(image, words, fault):
    """In the words of Docker, of its image store in containerd, and of Podman."""
    assert type(Pull(image, mirror="")._why(words)) is fault
