"""A cloud as it is said to behave: a front for a real S3 server, which enforces its Quirks.

``with QuirkServer(QUIRKS["oss"], server, {"bucket1": place}) as cloud`` listens on a free loopback
port under the names of the cloud's buckets; ``place`` is the bucket that has the objects.  Each
signature is checked with botocore's signer over what arrived.  ``cloud.seen`` tells what did.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import ssl
import threading
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from adsmig.location import Credentials
from adsmig.storage.signing import encode_query, sign
from tests.front import CHUNK, Exchange, Front
from tests.quirks import Quirks
from tests.servers import Server

ACCESS_KEY, SECRET_KEY = "ak", "sk"
_ETAG = re.compile(rb'(?<=<ETag>)(?:&quot;|&#34;|")?([0-9a-f]{32}(?:-[0-9]+)?)(?:&quot;|&#34;|")?')
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<day>\d+)/(?P<region>[^/]+)/s3/aws4_request,"
    r" SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]+)"
)
_CLASHES = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)


class Refused(Exception):
    """What the cloud does not take: status, code."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(status, code)
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Seen:
    """A request, and what it was answered."""

    method: str
    bucket: str
    key: bytes
    query: dict[str, str]
    headers: dict[str, str]
    size: int = 0
    status: int = 0
    code: str = ""
    """Of the refusal, if it was one."""

    @property
    def is_data(self) -> bool:
        """Reads or writes an object, or a part of one."""
        return bool(self.key) and self.method in ("GET", "PUT") and "tagging" not in self.query

    @property
    def is_list(self) -> bool:
        return not self.key and self.method == "GET" and "max-keys" in self.query


@dataclass
class _Upload:
    sizes: dict[int, int] = field(default_factory=dict)


class QuirkServer(Front):
    """Entering starts it, leaving stops it.

    ``places`` names, for each of the cloud's buckets, the one of ``server`` that it stands for.
    With ``tls``, it answers over https; ``address`` is where it listens, at a port of its own.
    """

    def __init__(
        self,
        quirks: Quirks,
        server: Server,
        places: dict[str, str],
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(server.host, tls, address)
        self.quirks, self.server, self.places = quirks, server, places
        self.seen: list[Seen] = []
        self.fails_after: int | None = None
        """After that many more objects or parts were stored, the keys are no longer known."""
        self._lock = threading.Lock()
        self._count = 0
        self._said: Counter[str] = Counter()
        self._real: dict[str, str] = {}
        self._uploads: dict[str, _Upload] = {}

    def answer(self, exchange: Exchange) -> None:
        """Answers as the cloud would."""
        _Exchange(self, exchange).answer()

    def clear(self) -> None:
        """Forgets what was seen so far."""
        self.seen.clear()

    @property
    def refusals(self) -> set[str]:
        """The codes of what was refused, other than by chance."""
        return {one.code for one in list(self.seen)} - {"", "SlowDown", "InternalError"}

    def stored(self) -> Counter[tuple[bytes, str]]:
        """How often each object, or part of one, was stored: by key and part number."""
        return Counter(
            (one.key, one.query.get("partNumber", ""))
            for one in list(self.seen)
            if one.method == "PUT" and one.key and one.status == 200 and not one.code
        )

    def said_once(self, what: str) -> bool:
        """Whether this is the first time."""
        with self._lock:
            self._said[what] += 1
            return self._said[what] == 1

    def next_number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def shown_etag(self, etag: str) -> str:
        """What the cloud shows of the real server's ETag."""
        whole, dash, parts = etag.partition("-")
        shown = etag
        if self.quirks.etag == "opaque" or (self.quirks.etag == "md5" and dash):
            shown = hashlib.md5(f"of our own: {whole}".encode()).hexdigest() + dash + parts
        if self.quirks.capitals:
            shown = shown.upper()
        self._real[shown] = etag
        return shown

    def real_etag(self, text: str) -> str:
        """The same text with the real server's ETags in it."""
        return re.sub(
            r"[0-9A-Fa-f]{32}(-[0-9]+)?", lambda match: self._real.get(match[0], match[0]), text
        )


class _Exchange:
    """One request and its answer."""

    def __init__(self, cloud: QuirkServer, handler: Exchange) -> None:
        self.cloud, self.quirks, self.handler = cloud, cloud.quirks, handler
        self.headers = {name.lower(): value for name, value in handler.headers.items()}
        self.left = int(self.headers.get("content-length", "0"))
        self.target = urlsplit(handler.path)
        query = dict(parse_qsl(self.target.query, keep_blank_values=True, encoding="latin-1"))
        self.seen = Seen(handler.command, "", b"", query, self.headers, self.left)

    def answer(self) -> None:
        try:
            self.place()
            self.check_signature()
            self.check()
            self.now_and_then()
            self.forward()
        except Refused as refused:
            self.refuse(refused)
        finally:
            self.cloud.seen.append(self.seen)

    # What is asked for, and by whom

    def place(self) -> None:
        """Finds the bucket and the key in host and path."""
        quirks, host = self.quirks, self.headers["host"]
        path = self.target.path
        if host == quirks.endpoint:
            if quirks.virtual_only:
                raise Refused(403, quirks.virtual_only)
            bucket, _, path = path[1:].partition("/")
            path = "/" + path
        elif host.endswith("." + quirks.endpoint) and not quirks.path_only:
            bucket = host.removesuffix("." + quirks.endpoint)
        else:
            raise Refused(400, "UnknownHost")  # that of another protocol, or of nobody
        self.seen.bucket, self.seen.key = bucket, unquote_to_bytes(path[1:])
        if bucket not in self.cloud.places:
            raise Refused(404, "NoSuchBucket")
        self.path = f"/{self.cloud.places[bucket]}{path}"

    def check_signature(self) -> None:
        match = _AUTHORIZATION.fullmatch(self.headers.get("authorization", ""))
        if not match or match["key"] != ACCESS_KEY:
            raise Refused(403, "AccessDenied")
        if self.quirks.region and match["region"] != self.quirks.region:
            if self.quirks.redirects:
                there = f"http://{self.headers['host']}{self.handler.path}"
                raise Refused(307, "TemporaryRedirect", Location=there)
            raise Refused(400, "AuthorizationHeaderMalformed")
        request = AWSRequest(self.seen.method, f"http://{self.headers['host']}{self.handler.path}")
        for name in match["signed"].split(";"):
            request.headers[name] = self.headers[name].encode("latin-1").decode()
        request.context["timestamp"] = self.headers["x-amz-date"]
        keys = BotoCredentials(ACCESS_KEY, SECRET_KEY)
        signer = S3SigV4Auth(keys, "s3", match["region"])
        text = signer.string_to_sign(request, signer.canonical_request(request))
        if signer.signature(text, request) != match["signature"]:
            raise Refused(403, "SignatureDoesNotMatch")

    def check(self) -> None:
        """Refuses what this cloud does."""
        quirks, seen, headers = self.quirks, self.seen, self.headers
        marker = headers.get("x-amz-content-sha256", "")
        if (
            "aws-chunked" in headers.get("content-encoding", "")
            or "x-amz-trailer" in headers
            or marker.startswith("STREAMING-")
        ):
            raise Refused(400, "XAmzContentSHA256Mismatch")
        if seen.key.startswith(b"/") and not quirks.leading_slash:
            raise Refused(400, "InvalidObjectName")
        user = [(n, v) for n, v in headers.items() if n.startswith("x-amz-meta-")]
        size = sum(len(name) - len("x-amz-meta-") + len(value) for name, value in user)
        if quirks.max_meta and size > quirks.max_meta:
            raise Refused(400, "MetadataTooLarge")
        if "encoding-type" in seen.query and not quirks.url_encoding:
            raise Refused(400, "InvalidArgument")
        if "delete" in seen.query:
            self.check_deletion()
        if seen.method == "PUT" and "x-amz-copy-source" not in headers:
            self.check_size()
        if seen.method == "PUT" and self.cloud.fails_after is not None:
            if self.cloud.fails_after <= 0:
                raise Refused(403, "InvalidAccessKeyId")
            self.cloud.fails_after -= 1

    def check_deletion(self) -> None:
        if not self.quirks.deletes_many:
            raise Refused(501, "NotImplemented")
        self.body = self.read()
        digest = base64.b64encode(hashlib.md5(self.body).digest()).decode()
        if "content-md5" not in self.headers:
            raise Refused(400, "MissingContentMD5")
        if self.headers["content-md5"] != digest:
            raise Refused(400, "BadDigest")

    def check_size(self) -> None:
        number, most = self.seen.query.get("partNumber"), self.quirks.exact_part
        if number is None:
            if self.seen.size > self.quirks.max_put:
                raise Refused(400, "EntityTooLarge")
        elif most and self.seen.size > most:
            raise Refused(400, "InvalidPartSize")
        else:
            upload = self.cloud._uploads.setdefault(self.seen.query["uploadId"], _Upload())
            upload.sizes[int(number)] = self.seen.size

    def now_and_then(self) -> None:
        quirks, seen = self.quirks, self.seen
        number = self.cloud.next_number()
        if quirks.slow_down_every and number % quirks.slow_down_every == 0:
            raise Refused(503, "SlowDown")
        copies = seen.method == "PUT" and "x-amz-copy-source" in self.headers
        completes = seen.method == "POST" and "uploadId" in seen.query
        if completes:
            sizes = self.cloud._uploads.get(seen.query["uploadId"], _Upload()).sizes
            for number in sorted(sizes)[:-1]:
                if sizes[number] < (quirks.exact_part or quirks.min_part):
                    raise Refused(400, "EntityTooSmall")
        hidden = quirks.errors_in_200 and (copies or completes)
        if hidden and self.cloud.said_once(f"{copies} {seen.key!r}"):
            raise Refused(200, "InternalError")

    # The real server's work

    body: bytes | None = None

    def forward(self) -> None:
        quirks, seen, handler = self.quirks, self.seen, self.handler
        query = dict(seen.query)
        if seen.is_list:
            query["max-keys"] = str(min(quirks.page, int(query["max-keys"])))
            if quirks.ignores_marker or (quirks.v1_only and "list-type" in query):
                for name in ("marker", "start-after", "continuation-token"):
                    query.pop(name, None)
            if "list-type" not in query:
                query = self.of_version_2(query)
        kept = {
            name: value
            for name, value in self.headers.items()
            if name.startswith("x-amz-") or name in (
                "content-type", "content-md5", "range", "if-match", "cache-control", "expires",
                "content-encoding", "content-disposition", "content-language",
            )
        }  # fmt: skip
        for name in ("x-amz-date", "x-amz-content-sha256"):
            kept.pop(name, None)
        for name in ("if-match", "x-amz-copy-source-if-match"):
            if name in kept:
                kept[name] = self.cloud.real_etag(kept[name])
        if source := kept.get("x-amz-copy-source"):
            bucket, _, key = source[1:].partition("/")
            kept["x-amz-copy-source"] = f"/{self.cloud.places[bucket]}/{key}"
            self.check_copy(key)
        if seen.method == "POST" and "uploadId" in query:
            self.body = self.cloud.real_etag(self.read().decode()).encode()
        answer = self.send(seen.method, self.path, query, kept)
        if seen.method == "HEAD" or (seen.key and seen.method == "GET" and not query):
            self.pass_on(answer)
            return
        text = answer.read()
        text = _ETAG.sub(lambda m: self.cloud.shown_etag(m[1].decode()).encode(), text)
        if seen.is_list:
            text = self.listing(text)
        self.seen.status = answer.status
        handler.send_response_only(answer.status, answer.reason)
        self.send_headers(answer, len(text))
        handler.wfile.write(text)

    def check_copy(self, key: str) -> None:
        source = self.path_of(self.headers["x-amz-copy-source"])
        answer = self.send("HEAD", source, {}, {})
        answer.read()
        if int(answer.headers.get("Content-Length", "0")) > self.quirks.max_copy:
            raise Refused(400, "EntityTooLarge")

    def path_of(self, source: str) -> str:
        bucket, _, key = source[1:].partition("/")
        return f"/{self.cloud.places[bucket]}/{key}"

    def send(
        self, method: str, path: str, query: dict[str, str], headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        server, upstream = self.cloud.server, self.handler.upstream
        keys = Credentials(server.access_key, server.secret_key)
        arguments = encode_query({name: value.encode("latin-1") for name, value in query.items()})
        headers = {"host": server.host, **headers}
        signed = sign(keys, server.region, method, path, arguments, headers)
        url = f"{path}?{arguments}" if arguments else path
        upstream.putrequest(method, url, skip_host=True, skip_accept_encoding=True)
        for name, value in signed.items():
            upstream.putheader(name, value.encode("latin-1"))
        if method in ("PUT", "POST"):
            size = self.left if self.body is None else len(self.body)
            upstream.putheader("Content-Length", str(size))
        upstream.endheaders()
        if method in ("PUT", "POST"):
            if self.body is not None:
                upstream.send(self.body)
            while self.left:
                upstream.send(self.chunk())
        return upstream.getresponse()

    def of_version_2(self, query: dict[str, str]) -> dict[str, str]:
        """The question of version 1 in terms of version 2: moto's next markers are no keys."""
        query = {**query, "list-type": "2"}
        marker = query.pop("marker", "")
        if marker.endswith("/") and "delimiter" in query and marker != query["prefix"]:
            marker += "\U0010ffff".encode().decode("latin-1")  # a directory is listed once
        return {**query, "start-after": marker} if marker else query

    def listing(self, text: bytes) -> bytes:
        quirks = self.quirks
        if "list-type" not in self.seen.query:
            text = re.sub(rb"<(NextContinuationToken|KeyCount|StartAfter)>.*?</\1>", b"", text)
            names = re.findall(rb"(?:<Key>|<CommonPrefixes>\s*<Prefix>)(.*?)</", text)
            if b"<IsTruncated>true" in text:
                # Escaped or not, keys here that are in order stay so.
                marker = b"<NextMarker>" + max(names, key=unquote_to_bytes) + b"</NextMarker>"
                text = text.replace(b"</ListBucketResult>", marker + b"</ListBucketResult>")
        if quirks.v1_only and "list-type" in self.seen.query:
            text = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", text)
        if not quirks.next_marker and "delimiter" not in self.seen.query:
            text = re.sub(rb"<NextMarker>.*?</NextMarker>", b"", text)
        if quirks.unsorted:
            items = iter(reversed(_CLASHES.findall(text)))
            text = _CLASHES.sub(lambda _: next(items), text)
        return text

    def pass_on(self, answer: http.client.HTTPResponse) -> None:
        chunked = answer.getheader("Transfer-Encoding") == "chunked"
        body = answer.read() if chunked else None
        self.seen.status = answer.status
        self.handler.send_response_only(answer.status, answer.reason)
        self.send_headers(answer, None if body is None else len(body))
        if body is not None:
            self.handler.wfile.write(body)
        elif self.seen.method != "HEAD":
            while data := answer.read(CHUNK):
                self.handler.wfile.write(data)
        else:
            answer.read()

    def send_headers(self, answer: http.client.HTTPResponse, size: int | None) -> None:
        handler = self.handler
        hidden = ["transfer-encoding", "connection", "server", "date"]
        hidden += ["content-length"] if size is not None else []
        for name, value in answer.getheaders():
            if name.lower() == "etag":
                value = f'"{self.cloud.shown_etag(value.strip(chr(34)))}"'
            if name.lower() not in hidden:
                handler.send_header(name, value)
        handler.send_header("Server", self.quirks.server)
        if size is not None:
            handler.send_header("Content-Length", str(size))
        handler.end_headers()

    def refuse(self, refused: Refused) -> None:
        while self.left:
            self.chunk()
        self.seen.status, self.seen.code = refused.status, refused.code
        text = f"<Error><Code>{refused.code}</Code><Message>no</Message></Error>"
        body = b"" if self.seen.method == "HEAD" else f'<?xml version="1.0"?>{text}'.encode()
        self.handler.send_response_only(refused.status)
        self.handler.send_header("Server", self.quirks.server)
        self.handler.send_header("Content-Length", str(len(body)))
        for name, value in refused.headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def read(self) -> bytes:
        """The request's body, whole."""
        data = b""
        while self.left:
            data += self.chunk()
        return data

    def chunk(self) -> bytes:
        data = self.handler.read(min(self.left, CHUNK))
        self.left -= len(data)
        return data
